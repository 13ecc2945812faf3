"""Advantage x surrogate x aggregation (x KL): arrays in, per-token values out."""

from jaxreason.objectives.algorithms import (
    CISPO,
    DAPO,
    DR_GRPO,
    GRPO,
    GSPO,
    REINFORCE_PLUS_PLUS,
    REINFORCE_PLUS_PLUS_BASELINE,
    RLOO,
    Algorithm,
)

__all__ = [
    "CISPO",
    "DAPO",
    "DR_GRPO",
    "GRPO",
    "GSPO",
    "REINFORCE_PLUS_PLUS",
    "REINFORCE_PLUS_PLUS_BASELINE",
    "RLOO",
    "Algorithm",
]

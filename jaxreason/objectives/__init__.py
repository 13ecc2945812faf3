"""Advantage x surrogate x aggregation (x KL): arrays in, per-token losses out."""

from jaxreason.objectives.algorithms import (
    ALGORITHMS,
    CISPO,
    DAPO,
    DR_GRPO,
    GRPO,
    GSPO,
    REINFORCE_PLUS_PLUS,
    REINFORCE_PLUS_PLUS_BASELINE,
    RLOO,
    Algorithm,
    resolve_algorithm,
)

__all__ = [
    "ALGORITHMS", "CISPO", "DAPO", "DR_GRPO", "GRPO", "GSPO", "REINFORCE_PLUS_PLUS", "REINFORCE_PLUS_PLUS_BASELINE",
    "RLOO", "Algorithm", "resolve_algorithm",
]  # fmt: skip

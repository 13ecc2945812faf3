"""Advantage x surrogate x aggregation (x KL): arrays in, per-token values out."""

from jaxreason.objectives.algorithms import DAPO, DR_GRPO, GRPO, Algorithm

__all__ = [
    "DAPO",
    "DR_GRPO",
    "GRPO",
    "Algorithm",
]

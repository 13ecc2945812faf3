"""Verdicts on completions: exact numbers, LaTeX by what it means, whole batches beside the sampler."""

from jaxreason.rewards.grading import AsyncGrader, Reward, grade
from jaxreason.rewards.math import MathGrader

__all__ = [
    "AsyncGrader",
    "MathGrader",
    "Reward",
    "grade",
]

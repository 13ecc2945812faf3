"""Verdicts on completions: exact numbers, LaTeX by what it means, whole batches beside the sampler."""

from jaxreason.rewards import numbers
from jaxreason.rewards.grading import AsyncGrader, Reward, grade
from jaxreason.rewards.intrinsic import (
    SELF_CERTAINTY,
    TOKEN_ENTROPY,
    TRAJECTORY_ENTROPY,
    ClusterReward,
    MajorityReward,
)
from jaxreason.rewards.math import MathGrader

VERIFIERS = {"strict": numbers.strict, "lenient": numbers.lenient, "symbolic": MathGrader}
REWARDS = VERIFIERS | {"self-certainty": SELF_CERTAINTY, "token-entropy": TOKEN_ENTROPY, "majority": MajorityReward}
REWARDS |= {"trajectory-entropy": TRAJECTORY_ENTROPY, "clusters": ClusterReward}

__all__ = [
    "REWARDS",
    "SELF_CERTAINTY",
    "TOKEN_ENTROPY",
    "TRAJECTORY_ENTROPY",
    "VERIFIERS",
    "AsyncGrader",
    "ClusterReward",
    "MajorityReward",
    "MathGrader",
    "Reward",
    "grade",
    "numbers",
]

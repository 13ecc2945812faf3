"""Rewards of completions: exact numbers, symbolic LaTeX, intrinsic, learned; grading beside the sampler."""

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
from jaxreason.rewards.registry import REWARDS, VERIFIERS

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

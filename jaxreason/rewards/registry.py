"""Rewards by name, for the command line; each entry makes its reward."""

from collections.abc import Callable

from jaxreason.rewards import intrinsic, numbers
from jaxreason.rewards.grading import Reward
from jaxreason.rewards.math import MathGrader

VERIFIERS: dict[str, Callable[[], Reward]] = {
    "strict": lambda: numbers.strict,
    "lenient": lambda: numbers.lenient,
    "symbolic": MathGrader,  # starts processes; needs the extra `math`
}
REWARDS: dict[str, Callable[[], Reward | intrinsic.IntrinsicReward]] = {
    **VERIFIERS,
    "self-certainty": lambda: intrinsic.SELF_CERTAINTY,
    "token-entropy": lambda: intrinsic.TOKEN_ENTROPY,
    "trajectory-entropy": lambda: intrinsic.TRAJECTORY_ENTROPY,
    "majority": intrinsic.MajorityReward,
    "clusters": intrinsic.ClusterReward,
}

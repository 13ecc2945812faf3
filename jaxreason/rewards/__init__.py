"""Rewards of completions: exact numbers, symbolic LaTeX, intrinsic, learned; grading beside the sampler.

Names for the command line are in `rewards.registry`, which the processes of `MathGrader` need not import.
"""

from jaxreason.rewards import numbers
from jaxreason.rewards.grading import AsyncGrader, Reward, grade
from jaxreason.rewards.math import MathGrader

__all__ = ["AsyncGrader", "MathGrader", "Reward", "grade", "numbers"]

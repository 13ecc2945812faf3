"""Algorithms as named values: advantage x surrogate x aggregation (x KL).

A variant is a `dataclasses.replace` of one of these:

    clip_higher = replace(GRPO, surrogate=partial(clipped, low=0.2, high=0.28))
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jaxreason.objectives.advantages import group_centred, group_normalised
from jaxreason.objectives.aggregate import fixed_length, sequence_mean, token_mean
from jaxreason.objectives.surrogates import clipped, k3


@dataclass(frozen=True)
class Algorithm:
    advantage: Callable
    """rewards [P G] -> advantages [P G]."""
    surrogate: Callable
    """(logps, old_logps, advantages [P G T] or [P G 1]) -> TokenLoss."""
    aggregate: Callable
    """mask [P G T] -> weights [P G T]."""
    kl: Callable = k3
    """(logps, reference_logps) -> per-token divergence; enters the loss with `kl_weight`."""
    kl_weight: float = 0.0
    """0 needs no reference model."""
    drop_truncated: bool = False
    """Leave completions cut by the length limit out of the loss (DAPO's overlong filtering)."""
    drop_constant: bool = False
    """Leave groups of equal rewards out of the loss and its denominator; only their KL term has a gradient."""


GRPO = Algorithm(group_normalised, clipped, sequence_mean)
"""Group Relative Policy Optimisation, DeepSeekMath (arXiv 2402.03300), without its KL term (published weight 0.04)."""

DR_GRPO = Algorithm(group_centred, clipped, fixed_length)
"""GRPO "done right" (arXiv 2503.20783): no division by the deviation, none by the completion's own length."""

DAPO = Algorithm(
    group_normalised, partial(clipped, low=0.2, high=0.28), token_mean, drop_truncated=True, drop_constant=True
)
"""DAPO (arXiv 2503.14476) without dynamic resampling and soft length penalty."""

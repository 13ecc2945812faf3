"""Losses over pairs of completions, one chosen and one rejected.

Those of policies take the same arrays, so that they are interchangeable: log-probabilities of whole completions, chosen
first, under the policy and under the model before tuning, and the completions' lengths in tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxreason.types import Array


class PairLoss(NamedTuple):
    loss: Float[Array, "P"]
    rewards: Float[Array, "P 2"]
    """What the policy implicitly pays for each side, chosen first; their difference is the margin."""


Preference = Callable[[Float[Array, "P 2"], Float[Array, "P 2"], Int[Array, "P 2"]], PairLoss]


def dpo(
    logps: Float[Array, "P 2"],
    reference_logps: Float[Array, "P 2"],
    lengths: Int[Array, "P 2"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> PairLoss:
    """-(1 - ε) log σ(m) - ε log σ(-m), m = β [(log π/π_ref)(chosen) - (log π/π_ref)(rejected)].

    DPO (arXiv 2305.18290, eq. 7); ε, the share of labels supposed to be wrong, makes it conservative DPO (Mitchell
    2023, https://ericmitchell.ai/cdpo.pdf, eq. 3).
    """
    rewards = beta * (logps - reference_logps)
    margin = rewards[:, 0] - rewards[:, 1]
    wrong = label_smoothing
    return PairLoss(-(1 - wrong) * jax.nn.log_sigmoid(margin) - wrong * jax.nn.log_sigmoid(-margin), rewards)


def ipo(
    logps: Float[Array, "P 2"], reference_logps: Float[Array, "P 2"], lengths: Int[Array, "P 2"], *, beta: float = 0.1
) -> PairLoss:
    """(h(chosen) - h(rejected) - 1 / (2 β))², h = log(π/π_ref) per token: IPO (arXiv 2310.12036, eq. 17).

    The paper sums over tokens; the mean, as TRL takes it, keeps one β for texts of all lengths.
    """
    ratios = (logps - reference_logps) / jnp.maximum(lengths, 1)
    return PairLoss(jnp.square(ratios[:, 0] - ratios[:, 1] - 1 / (2 * beta)), beta * ratios)


def simpo(
    logps: Float[Array, "P 2"],
    reference_logps: Float[Array, "P 2"],
    lengths: Int[Array, "P 2"],
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
) -> PairLoss:
    """-log σ(m - γ), m the difference of β log π per token: SimPO (arXiv 2405.14734, eq. 6).

    Needs no reference; its log-probabilities are not looked at. The authors tune β from 2 to 10 and γ / β from 0 to 1.
    """
    rewards = beta * logps / jnp.maximum(lengths, 1)
    return PairLoss(-jax.nn.log_sigmoid(rewards[:, 0] - rewards[:, 1] - gamma), rewards)


def bradley_terry(rewards: Float[Array, "P 2"]) -> Float[Array, "P"]:
    """-log σ(r(chosen) - r(rejected)): a reward model's loss (Ouyang et al., arXiv 2203.02155, eq. 1)."""
    return -jax.nn.log_sigmoid(rewards[:, 0] - rewards[:, 1])

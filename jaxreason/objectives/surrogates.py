"""Surrogate losses: a loss for every token from log-probabilities and advantages.

All take the same arrays and are interchangeable: log-probabilities of the tokens under the policy and under the one
that sampled them (0 where masked); advantages of tokens, or (T = 1) of whole completions; the mask of tokens that
count.
"""

from math import inf
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxreason.types import Array

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped before exp, so that one absurd token gives a large finite loss instead of inf."""


class TokenLoss(NamedTuple):
    loss: Float[Array, "P G T"]
    clip_mask: Bool[Array, "P G T"]
    """True where clipping removed the gradient."""


def ppo_clip(
    logps: Float[Array, "P G T"],
    old_logps: Float[Array, "P G T"],
    advantages: Float[Array, "P G #T"],
    mask: Bool[Array, "P G T"],
    *,
    low: float = 0.2,
    high: float = 0.2,
    dual: float = inf,
) -> TokenLoss:
    """-min(r A, clip(r, 1 - low, 1 + high) A), r = exp(logp - old_logp): PPO (arXiv 1707.06347, eq. 7) per token.

    `high` above `low` is DAPO's clip-higher (arXiv 2503.14476: 0.2 and 0.28). Where A < 0 the loss is at most -dual A
    (dual-clip PPO, arXiv 1912.09729, eq. 5: 3), so that a bad token that became likely does not push without bound.
    """
    return _ppo_clip(_ratio(logps - old_logps), advantages, low, high, dual)


def sequence_ppo_clip(
    logps: Float[Array, "P G T"],
    old_logps: Float[Array, "P G T"],
    advantages: Float[Array, "P G #T"],
    mask: Bool[Array, "P G T"],
    *,
    low: float = 3e-4,
    high: float = 4e-4,
) -> TokenLoss:
    """`ppo_clip` with one ratio for all tokens of a completion, s = exp(mean_t (logp_t - old_logp_t)).

    GSPO (arXiv 2507.18071, eq. 5 to 7), with its clipping range; goes with a mean over each completion's tokens. Where
    advantages are of single tokens it is the token variant, sg[s] π_t / sg[π_t] (eq. 14), whose gradient is the same
    where they are not.
    """
    whole = jnp.where(mask, logps - old_logps, 0.0).sum(axis=-1, keepdims=True) / _lengths(mask)
    per_token = jax.lax.stop_gradient(whole) + logps - jax.lax.stop_gradient(logps)
    return _ppo_clip(_ratio(per_token), advantages, low, high, inf)


def cispo(
    logps: Float[Array, "P G T"],
    old_logps: Float[Array, "P G T"],
    advantages: Float[Array, "P G #T"],
    mask: Bool[Array, "P G T"],
    *,
    max_ratio: float = 5.0,
) -> TokenLoss:
    """-sg[min(r, max_ratio)] A logp: the weight is clipped, never the gradient (CISPO, MiniMax-M1, arXiv 2506.13585,
    eq. 4).

    The paper publishes no bound; 5 is ScaleRL's (arXiv 2510.13786). It bounds r; elsewhere the knob bounds r - 1.
    """
    weight = jax.lax.stop_gradient(jnp.minimum(_ratio(logps - old_logps), max_ratio))
    return TokenLoss(-weight * advantages * logps, jnp.zeros(logps.shape, bool))


def reinforce(
    logps: Float[Array, "P G T"],
    old_logps: Float[Array, "P G T"],
    advantages: Float[Array, "P G #T"],
    mask: Bool[Array, "P G T"],
) -> TokenLoss:
    """-A logp: the plain policy gradient (Williams 1992), which takes the samples to be the policy's own."""
    return TokenLoss(-advantages * logps, jnp.zeros(logps.shape, bool))


def _ppo_clip(ratio: Float[Array, "P G T"], advantages: Float[Array, "P G #T"], low: float, high: float, dual: float):
    bounded = jnp.clip(ratio, 1 - low, 1 + high)
    objective = jnp.minimum(ratio * advantages, bounded * advantages)
    clip_mask = bounded * advantages < ratio * advantages
    if dual < inf:
        floor = jnp.where(advantages < 0, dual * advantages, -inf)
        objective, clip_mask = jnp.maximum(objective, floor), clip_mask | (objective < floor)
    return TokenLoss(-objective, clip_mask)


def _ratio(log_ratio: Float[Array, "P G T"]) -> Float[Array, "P G T"]:
    return jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def _lengths(mask: Bool[Array, "P G T"]) -> Float[Array, "P G 1"]:
    return jnp.maximum(mask.sum(axis=-1, keepdims=True), 1).astype(jnp.float32)

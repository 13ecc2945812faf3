"""From log-probabilities and advantages to a loss for every token."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped before exp, so that one absurd token gives a large finite loss instead of inf."""


class TokenLoss(NamedTuple):
    loss: Float[Array, "P G T"]
    clipped: Bool[Array, "P G T"]
    """True where clipping took the gradient away."""


def clipped(
    logps: Float[Array, "P G T"],
    old_logps: Float[Array, "P G T"],
    advantages: Float[Array, "P G #T"],
    *,
    low: float = 0.2,
    high: float = 0.2,
) -> TokenLoss:
    """-min(r A, clip(r, 1 - low, 1 + high) A), r = exp(logp - old_logp): PPO (arXiv 1707.06347, eq. 7) per token.

    An advantage is a token's, or (T = 1) a whole completion's.
    `high` above `low` is DAPO's clip-higher (arXiv 2503.14476: 0.2 and 0.28).
    """
    ratio = jnp.exp(jnp.clip(logps - old_logps, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    bounded = jnp.clip(ratio, 1 - low, 1 + high)
    objective = jnp.minimum(ratio * advantages, bounded * advantages)
    return TokenLoss(-objective, clipped=bounded * advantages < ratio * advantages)


def k1(logps: Float[Array, "*batch"], reference: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """log p - log q: unbiased for KL(p || q) over samples of p; as a loss its expected gradient is zero."""
    return logps - reference


def k2(logps: Float[Array, "*batch"], reference: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """(log p - log q)² / 2: biased value, but its expected gradient is that of KL(p || q) on samples of p."""
    return 0.5 * jnp.square(logps - reference)


def k3(logps: Float[Array, "*batch"], reference: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """q/p - 1 - log(q/p): unbiased, never negative, low variance (Schulman 2020, http://joschu.net/blog/kl-approx.html).

    GRPO's choice (arXiv 2402.03300, eq. 4). As a loss its expected gradient is that of the forward KL(q || p).
    """
    log_ratio = jnp.clip(reference - logps, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return jnp.expm1(log_ratio) - log_ratio

"""Estimators of KL(policy || reference) from the log-probabilities of sampled tokens, one value a token.

`Algorithm.kl` names one of them, `kl_weight` its weight, and `kl_in` whether it is part of the loss or of the reward.
"""

import jax.numpy as jnp
from jaxtyping import Float

from jaxreason.objectives.surrogates import LOG_RATIO_LIMIT
from jaxreason.types import Array


def k1(logps: Float[Array, "*batch"], reference: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """log p - log q: unbiased for KL(p || q) over samples of p; as a loss its expected gradient is zero."""
    return logps - reference


def k2(logps: Float[Array, "*batch"], reference: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """(log p - log q)² / 2: biased value, but its expected gradient is that of KL(p || q) on samples of p."""
    return 0.5 * jnp.square(logps - reference)


def k3(logps: Float[Array, "*batch"], reference: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """q/p - 1 - log(q/p): unbiased, never negative, low variance (Schulman 2020,
    http://joschu.net/blog/kl-approx.html).

    GRPO's choice (arXiv 2402.03300, eq. 4). As a loss its expected gradient is that of the forward KL(q || p).
    """
    log_ratio = jnp.clip(reference - logps, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return jnp.expm1(log_ratio) - log_ratio

"""From rewards to advantages: what each completion is compared with."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPSILON = 1e-4
"""Added to the standard deviation; TRL's value."""

Advantage = Callable[[Float[Array, "P G"]], Float[Array, "P G"]]


def group_normalised(rewards: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """A = (R - mean_g R) / (std_g R + 1e-4), std with G - 1: GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3).

    A group of one, or of equal rewards, has advantage zero: there is nothing to compare with.
    """
    G = rewards.shape[-1]
    centred = group_centred(rewards)
    deviation = jnp.sqrt(jnp.sum(jnp.square(centred), axis=-1, keepdims=True) / max(G - 1, 1))
    return centred / (deviation + EPSILON)


def group_centred(rewards: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """A = R - mean_g R: Dr. GRPO (arXiv 2503.20783), which finds that the division overweights extreme groups."""
    return rewards - rewards.mean(axis=-1, keepdims=True)


def leave_one_out(rewards: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """A_i = R_i - mean of the others' R = G / (G - 1) (R_i - mean_g R): RLOO (arXiv 2402.14740, eq. 6)."""
    G = rewards.shape[-1]
    return group_centred(rewards) * (G / max(G - 1, 1))


def no_baseline(rewards: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """A = R, for what is normalised over the batch afterwards: REINFORCE++."""
    return rewards


def whitened(advantages: Float[Array, "P G #T"], mask: Bool[Array, "P G T"]) -> Float[Array, "P G T"]:
    """(A - mean) / std over all tokens of the batch, std with n - 1 (REINFORCE++, arXiv 2501.03262, eq. 9).

    Where all are equal, zero.
    """
    count = mask.sum()
    centred = jnp.where(mask, advantages - jnp.sum(advantages * mask) / jnp.maximum(count, 1), 0.0)
    variance = jnp.sum(jnp.square(centred)) / jnp.maximum(count - 1, 1)
    return centred / jnp.sqrt(variance + 1e-8)


def sum_then_normalise(
    advantage: Advantage, rewards: Float[Array, "K P G"], weights: Sequence[float]
) -> Float[Array, "P G"]:
    """The advantage of the weighted sum of several rewards."""
    return advantage(_sum(rewards, weights))


def normalise_then_sum(
    advantage: Advantage, rewards: Float[Array, "K P G"], weights: Sequence[float]
) -> Float[Array, "P G"]:
    """The weighted sum of each reward's own advantage, normalised over the batch: GDPO (arXiv 2601.05242), so that no
    reward drowns another by its scale."""
    total = _sum(jnp.stack([advantage(reward) for reward in rewards]), weights)
    return (total - total.mean()) / (total.std(ddof=1) + EPSILON)


def _sum(values: Float[Array, "K P G"], weights: Sequence[float]) -> Float[Array, "P G"]:
    return jnp.tensordot(jnp.asarray(weights, jnp.float32), values, axes=1)


def suffix_sum(values: Float[Array, "P G T"]) -> Float[Array, "P G T"]:
    """At each token, the sum of its own value and of all that follow."""
    return jnp.flip(jnp.cumsum(jnp.flip(values, axis=-1), axis=-1), axis=-1)


def constant_groups(rewards: Float[Array, "*P G"]) -> Bool[Array, "*P"]:
    """True where every completion of a prompt earned the same, so that the group carries no signal."""
    return (rewards == rewards[..., :1]).all(axis=-1)

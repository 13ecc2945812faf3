"""Advantages from rewards: what each completion is compared with."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxreason.types import Array

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
    """A = R - mean_g R: Dr. GRPO (arXiv 2503.20783), which finds that the division overweights extreme groups.

    Exactly zero for equal rewards of any size: their differences from the first are, a rounded mean is not.
    """
    differences = rewards - rewards[..., :1]
    return differences - differences.mean(axis=-1, keepdims=True)


def leave_one_out(rewards: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """A_i = R_i - mean of the others' R = G / (G - 1) (R_i - mean_g R): RLOO (arXiv 2402.14740, eq. 6)."""
    G = rewards.shape[-1]
    return group_centred(rewards) * (G / max(G - 1, 1))


def no_baseline(rewards: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """A = R: REINFORCE++ normalises over the batch afterwards."""
    return rewards


def whitened(advantages: Float[Array, "P G #T"], mask: Bool[Array, "P G T"]) -> Float[Array, "P G T"]:
    """(A - mean) / std over all tokens of the batch, std with n - 1 (REINFORCE++, arXiv 2501.03262, eq. 9).

    Zero where all are equal.
    """
    count, differences = mask.sum(), advantages - advantages.max()  # exactly zero where all are equal
    centred = jnp.where(mask, differences - jnp.sum(differences * mask) / jnp.maximum(count, 1), 0.0)
    variance = jnp.sum(jnp.square(centred)) / jnp.maximum(count - 1, 1)
    return centred / jnp.sqrt(variance + 1e-8)


def sum_then_normalise(
    advantage: Advantage, rewards: Float[Array, "P G K"], weights: Sequence[float]
) -> Float[Array, "P G"]:
    """A of sum_k w_k R_k: the K rewards are added up first."""
    return advantage(weighted_sum(rewards, weights))


def normalise_then_sum(
    advantage: Advantage, rewards: Float[Array, "P G K"], weights: Sequence[float]
) -> Float[Array, "P G"]:
    """sum_k w_k A(R_k), normalised over the batch: GDPO (arXiv 2601.05242). No reward drowns another by its scale."""
    each = jnp.stack([advantage(rewards[..., k]) for k in range(rewards.shape[-1])], axis=-1)
    total = weighted_sum(each, weights)
    centred = total - total.mean()
    deviation = jnp.sqrt(jnp.sum(jnp.square(centred)) / max(total.size - 1, 1))
    return centred / (deviation + EPSILON)


def weighted_sum(values: Float[Array, "P G K"], weights: Sequence[float]) -> Float[Array, "P G"]:
    return jnp.tensordot(values, jnp.asarray(weights, jnp.float32), axes=1)


def suffix_sum(values: Float[Array, "P G T"]) -> Float[Array, "P G T"]:
    """At each token, the sum of its own value and of all later ones."""
    return jnp.flip(jnp.cumsum(jnp.flip(values, axis=-1), axis=-1), axis=-1)


def has_reward_variance(rewards: Float[Array, "P G *K"]) -> Bool[Array, "P"]:
    """True where completions of a prompt differ in some reward: a group with a signal."""
    return (rewards != rewards[:, :1]).reshape(len(rewards), -1).any(axis=-1)

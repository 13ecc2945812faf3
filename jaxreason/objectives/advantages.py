"""From rewards to advantages: what each completion is compared with."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPSILON = 1e-4
"""Added to the standard deviation; TRL's value."""


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


def constant_groups(rewards: Float[Array, "P G"]) -> Bool[Array, "P"]:
    """True where every completion of a prompt earned the same, so that the group carries no signal."""
    return (rewards == rewards[..., :1]).all(axis=-1)

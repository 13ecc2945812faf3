"""What a completion's length, or where it came from, makes of its reward or advantage."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxreason.objectives.surrogates import LOG_RATIO_LIMIT


def soft_overlong(
    rewards: Float[Array, "P G"], lengths: Int[Array, "P G"], *, limit: int, buffer: int
) -> Float[Array, "P G"]:
    """0 up to limit - buffer tokens, then falling to -1 at the limit: DAPO (arXiv 2503.14476, eq. 13), which has a
    buffer of 4,096 of 20,480."""
    return jnp.clip((limit - buffer - lengths) / buffer, -1.0, 0.0)


def length_normalised(
    rewards: Float[Array, "P G"], lengths: Int[Array, "P G"], *, weight: float = 1.0
) -> Float[Array, "P G"]:
    """w λ where the reward is positive, else w min(0, λ), with λ = 1/2 - (L - min_g L) / (max_g L - min_g L).

    Kimi k1.5's length reward (arXiv 2501.12599, section 2.3.3): the shortest right answer of a group earns the most, a
    long wrong one is fined. Nothing where all are equally long.
    """
    shortest, longest = lengths.min(axis=-1, keepdims=True), lengths.max(axis=-1, keepdims=True)
    place = 0.5 - (lengths - shortest) / jnp.maximum(longest - shortest, 1)
    bonus = jnp.where(rewards > 0, place, jnp.minimum(place, 0.0))
    return weight * jnp.where(longest > shortest, bonus, 0.0)


def truncated_importance(
    own_logps: Float[Array, "P G T"], sampled_logps: Float[Array, "P G T"], *, most: float = 2.0
) -> Float[Array, "P G T"]:
    """min(exp(own - sampled), most): what a token weighs whose sampler and trainer disagree.

    Truncated importance sampling (Yao et al. 2025, https://fengyao.notion.site/off-policy-rl), with verl's bound. Here
    both are one forward pass, so that it is 1 but for rounding; it serves rollouts that another engine wrote.
    """
    return jnp.minimum(jnp.exp(jnp.clip(own_logps - sampled_logps, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)), most)


def high_entropy(entropy: Float[Array, "P G T"], mask: Bool[Array, "P G T"], *, share: float) -> Bool[Array, "P G T"]:
    """True at the `share` of the batch's tokens with the highest entropy, ties included: the forks of a text (arXiv
    2506.01939: 0.2)."""
    known = jnp.sort(jnp.where(mask, entropy, -jnp.inf), axis=None)[::-1]
    count = jnp.ceil(share * mask.sum()).astype(jnp.int32)
    return mask & (entropy >= known[jnp.maximum(count - 1, 0)])

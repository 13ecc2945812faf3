"""Further rewards and weights: a completion's length, its sampler, the entropy of its tokens."""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxreason.objectives.surrogates import LOG_RATIO_LIMIT
from jaxreason.types import Array


def soft_overlong(
    rewards: Float[Array, "P G"], lengths: Int[Array, "P G"], limit: int, *, buffer: int | float
) -> Float[Array, "P G"]:
    """0 up to `limit - buffer` tokens, then falling linearly to -1 at the limit: DAPO (arXiv 2503.14476, eq. 13).

    `buffer` is in tokens, or a share of the limit where it is below 1 (published: 4,096 of 20,480, a share of 0.2).
    """
    tokens = buffer * limit if buffer < 1 else buffer
    return jnp.clip((limit - tokens - lengths) / tokens, -1.0, 0.0)


def length_normalised(
    rewards: Float[Array, "P G"], lengths: Int[Array, "P G"], limit: int, *, weight: float = 1.0
) -> Float[Array, "P G"]:
    """w λ where the reward is positive, else w min(0, λ), with λ = 1/2 - (L - min_g L) / (max_g L - min_g L).

    Kimi k1.5's length reward (arXiv 2501.12599, section 2.3.3): the shortest right answer of a group earns the most, a
    long wrong one is fined. Zero where all lengths are equal. The length limit plays no part.
    """
    shortest, longest = lengths.min(axis=-1, keepdims=True), lengths.max(axis=-1, keepdims=True)
    relative = 0.5 - (lengths - shortest) / jnp.maximum(longest - shortest, 1)
    bonus = jnp.where(rewards > 0, relative, jnp.minimum(relative, 0.0))
    return weight * jnp.where(longest > shortest, bonus, 0.0)


def truncated_importance(
    trainer_logps: Float[Array, "P G T"], sampled_logps: Float[Array, "P G T"], *, max_ratio: float = 2.0
) -> Float[Array, "P G T"]:
    """min(exp(trainer - sampler), max_ratio): the weight of a token whose sampler and trainer disagree.

    Truncated importance sampling (Yao et al. 2025, https://fengyao.notion.site/off-policy-rl), with verl's bound.
    Here sampler and trainer share one forward pass, so that it is 1 up to rounding; it serves rollouts of other
    engines.
    """
    return jnp.minimum(jnp.exp(jnp.clip(trainer_logps - sampled_logps, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)), max_ratio)


def high_entropy(entropy: Float[Array, "P G T"], mask: Bool[Array, "P G T"], *, share: float) -> Bool[Array, "P G T"]:
    """True at the `share` of the batch's tokens with the highest entropy, ties included (arXiv 2506.01939: 0.2)."""
    known = jnp.sort(jnp.where(mask, entropy, -jnp.inf), axis=None)[::-1]
    count = jnp.ceil(share * mask.sum()).astype(jnp.int32)
    return mask & (entropy >= known[jnp.maximum(count - 1, 0)])

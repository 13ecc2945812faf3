"""Rollouts with everything of the loss that does not depend on the parameters, made on the host."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxreason.models.scoring import Scores
from jaxreason.objectives.advantages import has_reward_variance
from jaxreason.objectives.algorithms import Algorithm, TokenScores, advantages_of
from jaxreason.types import Array, Rollouts


class Batch(NamedTuple):
    """What a policy update learns from; micro-batches split it along P."""

    rollouts: Rollouts
    advantages: Float[Array, "P G #T"]
    """Of every token, or [P G 1] of whole completions."""
    weights: Float[Array, "P G T"]
    reference_logps: Float[Array, "P G T"]
    """Zeros where there is no reference model."""
    consumed: Int[Array, "*parts"] | int | None
    """Prompts that were sampled for it, in all (per device under `pmap`)."""


def make_batch(
    rollouts: Rollouts,
    rewards: Float[Array, "P G"] | Float[Array, "P G K"],
    algorithm: Algorithm,
    reference_logps: Float[Array, "P G T"] | None = None,
    *,
    policy_scores: Scores | None = None,
    reward_weights: Sequence[float] = (),
    consumed: int | None = None,
) -> Batch:
    """Advantages and token weights, from the whole batch: host arrays, computed on the host's CPU device.

    `rewards` are one [P G], or several [P G K] with `reward_weights` (1 each). `reference_logps` are needed where the
    algorithm has a KL, `policy_scores` (those before the update) where it uses them (`Algorithm.needs_policy_scores`).
    `consumed` prompts were sampled for the batch, by default its own.
    """
    if algorithm.kl_weight and reference_logps is None:
        raise ValueError(f"kl_weight {algorithm.kl_weight} without reference_logps: give those of the reference model")
    if algorithm.needs_policy_scores and policy_scores is None:
        raise ValueError("the algorithm uses the policy's own scores: give policy_scores, from score_completions")
    rollouts, rewards, reference_logps, policy_scores = jax.device_get(
        (rollouts, rewards, reference_logps, policy_scores)
    )
    rewards = rewards.reshape(*rewards.shape[:2], -1)
    weights = reward_weights or (1.0,) * rewards.shape[-1]
    counted = np.ones(rewards.shape[:2], bool)
    if algorithm.drop_truncated:
        counted &= ~rollouts.truncated
    if algorithm.drop_constant:
        counted &= has_reward_variance(rewards)[:, None]
    own = (policy_scores.logps, policy_scores.entropy) if policy_scores is not None else ()
    scores = TokenScores(rollouts.logps, rollouts.mask, reference_logps, *own)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        token_weights = algorithm.aggregate(jnp.asarray(rollouts.mask & counted[..., None]))
        rewards, scores = jax.tree.map(jnp.asarray, (rewards, scores))
        advantages = advantages_of(algorithm, rewards, weights, scores)
    if policy_scores is not None and algorithm.importance:
        rollouts = rollouts._replace(logps=policy_scores.logps)
    if reference_logps is None:
        reference_logps = np.zeros_like(rollouts.logps)
    consumed = len(rewards) if consumed is None else consumed
    advantages, token_weights = jax.device_get((advantages, token_weights))
    return Batch(rollouts, advantages, token_weights, reference_logps, np.array(consumed, np.int32))

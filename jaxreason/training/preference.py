"""Learning from pairs of completions, one chosen and one rejected: policies, and reward models."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxreason.data.jsonl import PreferencePair
from jaxreason.models.reward_head import score_rewards
from jaxreason.models.scoring import score_completions
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.preference import Preference, bradley_terry, dpo
from jaxreason.sampling.rollout import bucket, pad_prompts
from jaxreason.training.state import TrainState, data_order
from jaxreason.training.updates import LossStats
from jaxreason.types import Array, Params, Rollouts


class PairBatch(NamedTuple):
    completions: Rollouts
    """Two for each prompt: the chosen, then the rejected one."""
    reference_logps: Float[Array, "P 2"]
    """Of whole completions, under the model before tuning."""
    weights: Float[Array, "P"]
    """1 / number of pairs of the whole batch; 0 where there is nothing to choose."""
    consumed: Int[Array, "*parts"] | None
    """Pairs, or prompts, in the batch (per device under `pmap`)."""


def best_worst_pairs(
    rollouts: Rollouts, rewards: Float[Array, "P G"], reference_logps: Float[Array, "P G"]
) -> PairBatch:
    """The best and the worst completion of every prompt; a prompt without a difference in reward has weight 0."""
    rewards = jnp.asarray(rewards)
    best, worst = jnp.argmax(rewards, axis=1), jnp.argmin(rewards, axis=1)
    members = jnp.stack([best, worst], axis=1)
    prompt = jnp.arange(len(rewards))[:, None]
    completions = rollouts._replace(
        tokens=rollouts.tokens[prompt, members],
        mask=rollouts.mask[prompt, members],
        logps=rollouts.logps[prompt, members],
        truncated=rollouts.truncated[prompt, members],
    )
    differ = best != worst
    weights = differ / jnp.maximum(differ.sum(), 1)
    return PairBatch(completions, reference_logps[prompt, members], weights, np.array(len(rewards), np.int32))


def batch_pairs(pairs: Sequence[PreferencePair], reference_logps: Float[np.ndarray, "P 2"] | None = None) -> PairBatch:
    """Given pairs as a batch, padded to a bucket; a reward model needs no `reference_logps`."""
    prompts = pad_prompts([pair.prompt for pair in pairs])
    lengths = np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs])
    mask = np.arange(bucket(int(lengths.max()))) < lengths[..., None]
    tokens = np.zeros(mask.shape, np.int32)
    tokens[mask] = [token for pair in pairs for side in (pair.chosen, pair.rejected) for token in side]
    rollouts = Rollouts(prompts, tokens, mask, np.zeros(mask.shape, np.float32), np.zeros(lengths.shape, bool))
    if reference_logps is None:
        reference_logps = np.zeros(lengths.shape, np.float32)
    weights = np.full(len(pairs), 1 / len(pairs), np.float32)
    return PairBatch(rollouts, reference_logps, weights, np.array(len(pairs), np.int32))


def next_pairs(
    state: TrainState,
    pairs: Sequence[PreferencePair],
    count: int,
    reference_logps: Float[np.ndarray, "N 2"] | None = None,
) -> PairBatch:
    """The `count` pairs that come next, in another order every epoch."""
    chosen = list(islice(data_order(state, len(pairs)), count))
    return batch_pairs([pairs[i] for i in chosen], None if reference_logps is None else reference_logps[chosen])


def completion_logps(params: Params, completions: Rollouts, *, model: Transformer) -> Float[Array, "P G"]:
    """Log-probability of every completion as a whole."""
    prompts, tokens, mask, *_ = completions
    return score_completions(params, prompts, tokens, mask, model=model).logps.sum(axis=-1)


def completion_rewards(params: Params, completions: Rollouts, *, model: Transformer) -> Float[Array, "P G"]:
    """The reward model's score of every completion."""
    prompts, tokens, mask, *_ = completions
    return score_rewards(params, prompts, tokens, mask, model=model)


def pair_loss(
    params: Params, pairs: PairBatch, *, model: Transformer, preference: Preference = dpo
) -> tuple[Float[Array, ""], LossStats]:
    """The mean of `preference` over the pairs."""
    logps = completion_logps(params, pairs.completions, model=model)
    loss, rewards = preference(logps, pairs.reference_logps, pairs.completions.lengths)
    return _mean_over_pairs(loss, rewards, pairs)


def reward_loss(params: Params, pairs: PairBatch, *, model: Transformer) -> tuple[Float[Array, ""], LossStats]:
    """The mean of `bradley_terry` over the pairs, for a model with a reward head."""
    rewards = completion_rewards(params, pairs.completions, model=model)
    return _mean_over_pairs(bradley_terry(rewards), rewards, pairs)


def _mean_over_pairs(
    loss: Float[Array, "P"], rewards: Float[Array, "P 2"], pairs: PairBatch
) -> tuple[Float[Array, ""], LossStats]:
    chosen, rejected = rewards.T
    means = {"loss": loss, "reward_chosen": chosen, "reward_rejected": rejected}
    means |= {"margin": chosen - rejected, "accuracy": chosen > rejected}
    sums = {name: jnp.sum(pairs.weights * values) for name, values in means.items()}
    return sums["loss"], jax.lax.stop_gradient(LossStats(sums, {}))


def pair_batch_metrics(batch: PairBatch) -> dict[str, int]:
    """Completion tokens, and all tokens that go through the update."""
    tokens = int(batch.completions.mask.sum())
    return {"tokens": tokens, "train_tokens": tokens + int(batch.completions.prompts.mask.sum())}


def score_pairs(
    params: Params, pairs: Sequence[PreferencePair], *, pairs_per_step: int, score: Callable[[Params, Rollouts], Array]
) -> Float[np.ndarray, "N 2"]:
    """`score` (the jitted `completion_logps` or `completion_rewards`) of both sides of every pair, in batches of one
    size."""
    parts = []
    for i in range(0, len(pairs), pairs_per_step):
        batch = list(pairs[i : i + pairs_per_step])
        padded = batch + batch[-1:] * (pairs_per_step - len(batch))  # one size can be sharded over a mesh
        parts.append(np.asarray(score(params, batch_pairs(padded).completions))[: len(batch)])
    return np.concatenate(parts)

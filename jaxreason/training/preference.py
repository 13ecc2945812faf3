"""Learning from pairs of completions, one chosen and one rejected: policies, and reward models."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxreason.data.jsonl import PreferencePair
from jaxreason.models.reward_head import score_rewards
from jaxreason.models.scoring import score_completions
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.preference import Preference, bradley_terry, dpo
from jaxreason.rewards.grading import Reward, grade
from jaxreason.sampling.rollout import ProblemSampler, bucket, decode_completions, pad_prompts
from jaxreason.tasks import Problem
from jaxreason.training.loop import data_order, next_prompt_batch
from jaxreason.training.state import TrainState
from jaxreason.training.updates import Metrics, Statistics
from jaxreason.types import Params, Rollouts


class Pairs(NamedTuple):
    completions: Rollouts
    """Two for each prompt: the chosen, then the rejected one."""
    reference_logps: Float[Array, "P 2"]
    """Of whole completions, under the model before tuning."""
    weights: Float[Array, "P"]
    """1 / number of pairs of the whole batch; 0 where there is nothing to choose."""


def best_worst_pairs(
    rollouts: Rollouts, rewards: Float[Array | np.ndarray, "P G"], reference_logps: Float[Array, "P G"]
) -> Pairs:
    """The best and the worst completion of every prompt; a prompt whose completions all earned the same weighs 0."""
    rewards = jnp.asarray(rewards)
    best, worst = jnp.argmax(rewards, axis=1), jnp.argmin(rewards, axis=1)
    members = jnp.stack([best, worst], axis=1)
    prompt = jnp.arange(len(rewards))[:, None]
    completions = rollouts._replace(
        **{name: getattr(rollouts, name)[prompt, members] for name in ("tokens", "mask", "logps", "truncated")}
    )
    differ = best != worst
    return Pairs(completions, reference_logps[prompt, members], differ / jnp.maximum(differ.sum(), 1))


def batch_pairs(pairs: Sequence[PreferencePair], reference_logps: Float[np.ndarray, "P 2"] | None = None) -> Pairs:
    """Pairs from elsewhere as a batch, padded to a bucket; a reward model needs no `reference_logps`."""
    prompts = pad_prompts([pair.prompt for pair in pairs])
    lengths = np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs])
    mask = np.arange(bucket(int(lengths.max()))) < lengths[..., None]
    tokens = np.zeros(mask.shape, np.int32)
    tokens[mask] = [token for pair in pairs for side in (pair.chosen, pair.rejected) for token in side]
    rollouts = Rollouts(prompts, tokens, mask, np.zeros(mask.shape, np.float32), np.zeros(lengths.shape, bool))
    if reference_logps is None:
        reference_logps = np.zeros(lengths.shape, np.float32)
    return Pairs(rollouts, reference_logps, np.full(len(pairs), 1 / len(pairs), np.float32))


def completion_logps(params: Params, completions: Rollouts, *, model: Transformer) -> Float[Array, "P G"]:
    """Log-probability of every completion as a whole."""
    prompts, tokens, mask, *_ = completions
    return score_completions(params, prompts, tokens, mask, model=model).logps.sum(axis=-1)


def pair_loss(
    params: Params, pairs: Pairs, *, model: Transformer, preference: Preference = dpo
) -> tuple[Float[Array, ""], Statistics]:
    """The mean of `preference` over the pairs."""
    logps = completion_logps(params, pairs.completions, model=model)
    loss, rewards = preference(logps, pairs.reference_logps, pairs.completions.lengths)
    return _mean_over_pairs(loss, rewards, pairs)


def reward_loss(params: Params, pairs: Pairs, *, model: Transformer) -> tuple[Float[Array, ""], Statistics]:
    """The mean of `bradley_terry` over the pairs, of a model with a reward head."""
    prompts, tokens, mask, *_ = pairs.completions
    rewards = score_rewards(params, prompts, tokens, mask, model=model)
    return _mean_over_pairs(bradley_terry(rewards), rewards, pairs)


def _mean_over_pairs(
    loss: Float[Array, "P"], rewards: Float[Array, "P 2"], pairs: Pairs
) -> tuple[Float[Array, ""], Statistics]:
    chosen, rejected = rewards.T
    means = {"loss": loss, "reward_chosen": chosen, "reward_rejected": rejected}
    means |= {"margin": chosen - rejected, "accuracy": chosen > rejected}
    sums = {name: jnp.sum(pairs.weights * values) for name, values in means.items()}
    return sums["loss"], jax.lax.stop_gradient(Statistics(sums, {}))


PairUpdate = Callable[[TrainState, Pairs], tuple[TrainState, Metrics]]


def pair_steps(
    state: TrainState,
    pairs: Sequence[PreferencePair],
    *,
    steps: int,
    pairs_per_step: int,
    update: PairUpdate,
    reference_logps: Float[np.ndarray, "N 2"] | None = None,
) -> Iterator[tuple[TrainState, Metrics]]:
    """Steps `state.step` to `steps` on given pairs, in another order every epoch."""
    while int(state.step) < steps:
        begin = time.perf_counter()
        chosen = list(islice(data_order(state, len(pairs)), pairs_per_step))
        known = None if reference_logps is None else reference_logps[chosen]
        batch = batch_pairs([pairs[i] for i in chosen], known)
        state, metrics = update(state, batch)
        state = state._replace(position=state.position + pairs_per_step)
        metrics = {name: float(value) for name, value in metrics.items()}
        counts = {"tokens": int(batch.completions.mask.sum())}
        counts["train_tokens"] = counts["tokens"] + int(batch.completions.prompts.mask.sum())
        yield state, {**metrics, **counts, "seconds_update": time.perf_counter() - begin}


def score_pairs(
    params: Params, pairs: Sequence[PreferencePair], *, pairs_per_step: int, score: Callable[[Params, Rollouts], Array]
) -> Float[np.ndarray, "N 2"]:
    """`score`, the jitted `completion_logps`, of both sides of every pair, as many at a time as in a step."""
    parts = []
    for i in range(0, len(pairs), pairs_per_step):
        some = list(pairs[i : i + pairs_per_step])
        with_defaults = some + some[-1:] * (pairs_per_step - len(some))  # a batch of one size can lie over a mesh
        parts.append(np.asarray(score(params, batch_pairs(with_defaults).completions))[: len(some)])
    return np.concatenate(parts)


def preference_steps(
    state: TrainState,
    problems: Sequence[Problem],
    *,
    steps: int,
    prompts_per_step: int,
    group_size: int,
    reference: Params,
    sampler: ProblemSampler,
    reward: Reward,
    score: Callable[[Params, Rollouts], Float[Array, "P G"]],
    update: PairUpdate,
) -> Iterator[tuple[TrainState, Metrics]]:
    """Steps `state.step` to `steps` of preferring what a verifier accepts to what it rejects.

    The `reference` model writes `group_size` completions of each prompt and gives the reference log-probabilities; `score`
    is the jitted `completion_logps`.
    """
    while int(state.step) < steps:
        chosen, keys = next_prompt_batch(state, problems, prompts_per_step, group_size)
        rollouts = sampler.sample(reference, sampler.prompts(chosen), keys=keys)
        rewards = grade(decode_completions(rollouts, sampler.tokenizer), chosen, reward)
        state, metrics = update(state, best_worst_pairs(rollouts, rewards, score(reference, rollouts)))
        state = state._replace(position=state.position + prompts_per_step)
        yield state, metrics

"""One GRPO step on the host: choose problems, sample, grade, update. The caller logs, evaluates and saves."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxreason.models.lora import merge_trees
from jaxreason.models.scoring import Scores
from jaxreason.objectives.algorithms import Algorithm
from jaxreason.rewards.grading import Reward
from jaxreason.rewards.intrinsic import IntrinsicReward
from jaxreason.sampling.generate import completion_keys
from jaxreason.sampling.rollout import ProblemSampler
from jaxreason.tasks import Problem
from jaxreason.training.collect import (
    CollectedGroups,
    Replay,
    Score,
    collect,
    concat_padded,
    has_reward_variance,
    tree_index,
)
from jaxreason.training.state import TrainState
from jaxreason.training.updates import Batch, Metrics, make_batch
from jaxreason.types import Params

Update = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
"""The jitted step: `jax.jit(partial(grpo_update, model=..., ...), donate_argnums=0)`."""


class StepResult(NamedTuple):
    state: TrainState
    """After the step; the state that went in was donated."""
    metrics: dict[str, float | int]
    samples: list[dict]
    """Every completion with its question and grades."""


TRAINING, EVALUATION = 0, 1
"""What a run's key is folded with, so that no key serves twice."""


def data_order(state: TrainState, size: int) -> Iterator[int]:
    """The numbers of what comes next, from `state.position` on: a fresh permutation of `size` every epoch."""
    _, key = _keys(state)
    epoch, begin = divmod(int(state.position), size)
    while True:
        yield from np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), size))[begin:].tolist()
        epoch, begin = epoch + 1, 0


def _keys(state: TrainState) -> Key[Array, "2"]:
    """For sampling and for the order of the data."""
    return jax.random.split(jax.random.fold_in(state.key, TRAINING))


def next_prompt_batch(
    state: TrainState, problems: Sequence[Problem], prompts: int, group_size: int
) -> tuple[list[Problem], Key[Array, "P G"]]:
    """The problems that `state` takes up next and the keys of their completions, both from the state alone."""
    chosen = [problems[i] for i in islice(data_order(state, len(problems)), prompts)]
    position = int(state.position)
    return chosen, completion_keys(_keys(state)[0], np.arange(position, position + prompts), group_size)


def grpo_steps(
    state: TrainState,
    problems: Sequence[Problem],
    *,
    steps: int,
    prompts_per_step: int,
    group_size: int,
    sampler: ProblemSampler,
    reward: Reward | IntrinsicReward | Mapping[Reward | IntrinsicReward, float],
    graders: dict[str, Reward],
    algorithm: Algorithm,
    update: Update,
    inner_updates: int = 1,
    tries: int = 1,
    replay: Replay | None = None,
    reference: Score | None = None,
    score: Callable[..., Scores] | None = None,
    frozen: Params = None,
) -> Iterator[StepResult]:
    """Steps `state.step` to `steps`; everything random follows from `state`, so a restart repeats them bit for bit.

    `reward` is optimised, one or several with their weights; `graders` are only logged. With more than one of `tries`
    (dynamic sampling, arXiv 2503.14476) problems are sampled until `prompts_per_step` groups differ in reward, and only
    these are learned, or as many as there are after the last try; `replay` takes earlier ones in the place of the rest.

    `reference` is `score_completions` of the reference model, needed where the algorithm has a KL; `score` the jitted
    `score_completions` itself, needed where the algorithm or an internal reward looks at the policy's own scores. What
    the state trains lies over the `frozen` parameters, if any. Docs of the metrics: README, "What a step logs".
    """
    weights = reward if isinstance(reward, Mapping) else {reward: 1.0}
    looks = algorithm.needs_policy_scores or any(isinstance(one, IntrinsicReward) for one in weights)
    if looks and score is None:
        raise ValueError("the algorithm or the reward looks at the policy's own scores: give `score`")
    gather = partial(collect, sampler=sampler, rewards=list(weights), graders=graders, score=score if looks else None)
    for step in range(int(state.step), steps):
        params, position = merge_trees(frozen, state.params), int(state.position)
        tried: list[tuple[list[Problem], CollectedGroups]] = []
        while (
            len(tried) < tries and sum(has_reward_variance(done.groups).sum() for _, done in tried) < prompts_per_step
        ):
            now = state._replace(position=jnp.int32(position))
            chosen, keys = next_prompt_batch(now, problems, prompts_per_step, group_size)
            tried.append((chosen, gather(params, chosen, keys)))
            position += prompts_per_step
        sampled, begin = concat_padded([done.groups for _, done in tried]), time.perf_counter()

        learned = sampled
        if replay:
            learned = replay.fill(step, sampled, prompts_per_step)
        elif tries > 1:
            learned = tree_index(sampled, np.flatnonzero(has_reward_variance(sampled))[:prompts_per_step])
        if not len(learned.staleness):  # nothing differs: a step without an advantage, of the KL alone
            learned = tree_index(sampled, np.s_[:prompts_per_step])
        rollouts = learned.rollouts
        reference_logps = reference and reference(rollouts.prompts, rollouts.tokens, rollouts.mask).logps
        rewards = np.swapaxes(learned.rewards, 0, 1)
        batch = make_batch(
            rollouts,
            rewards,
            algorithm,
            reference_logps,
            policy_scores=learned.policy_scores,
            reward_weights=tuple(weights.values()),
        )
        state, metrics = update(state, batch)
        agreement = {name: metrics[name] for name in ("logp_difference_mean", "logp_difference_max")}
        for _ in range(inner_updates - 1):
            state, metrics = update(state, batch)
        metrics |= agreement  # sampler and trainer agree before the first update moves the policy, not after it
        state = state._replace(step=state.step + 1, position=jnp.int32(position))
        metrics = {name: float(value) for name, value in metrics.items()}
        updated = time.perf_counter()

        lengths, seconds = np.asarray(sampled.rollouts.lengths), sum(done.seconds_sampling for _, done in tried)
        totals = np.tensordot(sampled.rewards, list(weights.values()), axes=(1, 0))
        grades = {name: np.concatenate([done.grades[name] for _, done in tried]) for name in graders}
        metrics = {
            "step": step + 1,
            "reward_mean": float(totals.mean()),
            **{f"{name}_share": float(values.mean()) for name, values in grades.items()},
            "frac_reward_zero_std": float(1 - has_reward_variance(sampled).mean()),
            "tries": len(tried),
            "groups_learned": int(has_reward_variance(learned).sum()),
            "staleness_mean": float(learned.staleness.mean()),
            "length_mean": float(lengths.mean()),
            "tokens": int(lengths.sum()),
            "train_tokens": int(np.asarray(rollouts.lengths).sum() + rollouts.prompts.mask.sum()),
            "truncated_share": float(np.mean(sampled.rollouts.truncated)),
            **metrics,
            "seconds_sampling": seconds,
            "seconds_rewards": sum(done.seconds_rewards for _, done in tried),
            "seconds_update": updated - begin,
            "tokens_per_second": float(lengths.sum()) / seconds,
        }
        yield StepResult(state, metrics, _rows(step + 1, tried, totals, lengths))


def _rows(
    step: int, tried: Sequence[tuple[list[Problem], CollectedGroups]], rewards: np.ndarray, lengths: np.ndarray
) -> list[dict]:
    """Every completion of a step, tries one after the other."""
    asked = [
        (problem, done.completions[p], {name: grades[p] for name, grades in done.grades.items()})
        for problems, done in tried
        for p, problem in enumerate(problems)
    ]
    return [
        {
            "step": step,
            "index": problem.index,
            "question": problem.question,
            "answer": problem.answer,
            "completion": completion,
            "tokens": int(lengths[p, g]),
            "reward": float(rewards[p, g]),
            **{name: float(values[g]) for name, values in grades.items()},
        }
        for p, (problem, completions, grades) in enumerate(asked)
        for g, completion in enumerate(completions)
    ]

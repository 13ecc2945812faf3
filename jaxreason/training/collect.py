"""What a policy update learns from: groups of completions that are sampled, graded and chosen."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from jaxreason.errors import InputError
from jaxreason.models.lora import merge_trees
from jaxreason.models.scoring import Scores
from jaxreason.objectives.advantages import has_reward_variance
from jaxreason.rewards.grading import AsyncGrader, Reward
from jaxreason.rewards.intrinsic import IntrinsicReward
from jaxreason.sampling import completion_keys
from jaxreason.sampling.continuous_batching import concat_in_order
from jaxreason.sampling.rollout import ProblemSampler, decode_completions
from jaxreason.tasks import Problem
from jaxreason.training.state import TrainState, data_order, training_keys
from jaxreason.types import Array, Params, Rollouts

Scorer = Callable[..., Scores]
"""The jitted `score_completions`: (params, prompts, tokens, mask) -> Scores."""
Rewards = Reward | IntrinsicReward | Mapping[Reward | IntrinsicReward, float]
"""One reward, or several with their weights."""


class RolloutGroups(NamedTuple):
    """Prompts with their completions and rewards; all arrays on the host."""

    rollouts: Rollouts
    rewards: Float[np.ndarray, "P G K"]
    """Of K kinds."""
    policy_scores: Scores | None
    """Scores of the tokens by the policy that sampled them, where they were asked for."""
    staleness: Int[np.ndarray, "P"]
    """Steps since they were sampled."""


class CollectedGroups(NamedTuple):
    """One step's groups: those it learns from, and everything that was sampled for it."""

    learned: RolloutGroups
    sampled: RolloutGroups
    problems: list[Problem]
    """Of the sampled groups, as all below."""
    completions: list[list[str]]
    grades: dict[str, Float[np.ndarray, "P G"]]
    """By the name of the grader."""
    reward_weights: tuple[float, ...]
    gen_batches: int
    seconds_sampling: float
    """Including the policy's own scores, if any."""
    seconds_rewards: float
    """What sampling did not hide."""

    @property
    def rewards(self) -> Float[np.ndarray, "P G"]:
        """The weighted sum that is optimised."""
        return self.sampled.rewards @ np.array(self.reward_weights)


def collect_groups(
    state: TrainState,
    problems: Sequence[Problem],
    sampler: ProblemSampler,
    reward: Rewards,
    *,
    prompts_per_step: int,
    group_size: int,
    graders: Mapping[str, Reward] = MappingProxyType({}),
    max_gen_batches: int = 1,
    replay: "Replay | None" = None,
    score: Scorer | None = None,
    frozen: Params = None,
) -> CollectedGroups:
    """Samples and grades the next problems; everything random follows from `state`, so that a restart repeats it.

    `reward` is optimised; `graders` are only logged. With `max_gen_batches` above 1 (dynamic sampling, arXiv
    2503.14476), batches of `prompts_per_step` problems are sampled until that many groups have a signal, and only these
    are learned from, or as many as there are after the last batch; `replay` fills up with groups of earlier steps.
    `score` gives the policy's own scores, for intrinsic rewards and algorithms that use them.
    """
    weights = reward if isinstance(reward, Mapping) else {reward: 1.0}
    params, tried = merge_trees(frozen, state.params), list[CollectedGroups]()
    while len(tried) < max_gen_batches and sum(_signals(each) for each in tried) < prompts_per_step:
        offset = len(tried) * prompts_per_step
        chosen, keys = next_prompt_batch(state, problems, prompts_per_step, group_size, offset=offset)
        tried.append(_sample_and_grade(params, chosen, keys, sampler, weights, graders, score))
    sampled = concat_padded([each.sampled for each in tried])

    learned = sampled
    if replay:
        learned = replay.fill(int(state.step), sampled, prompts_per_step)
    elif max_gen_batches > 1:
        learned = tree_index(sampled, np.flatnonzero(has_reward_variance(sampled.rewards))[:prompts_per_step])
    if not len(learned.staleness):  # no group has a signal
        learned = tree_index(sampled, np.s_[:prompts_per_step])
    return CollectedGroups(
        learned,
        sampled,
        problems=[problem for each in tried for problem in each.problems],
        completions=[group for each in tried for group in each.completions],
        grades={name: np.concatenate([each.grades[name] for each in tried]) for name in graders},
        reward_weights=tuple(weights.values()),
        gen_batches=len(tried),
        seconds_sampling=sum(each.seconds_sampling for each in tried),
        seconds_rewards=sum(each.seconds_rewards for each in tried),
    )


def next_prompt_batch(
    state: TrainState, problems: Sequence[Problem], prompts: int, group_size: int, *, offset: int = 0
) -> tuple[list[Problem], Key[jax.Array, "P G"]]:
    """The problems that come next (`offset` later) and the keys of their completions, both from the state alone."""
    position = int(state.position) + offset
    order = data_order(state._replace(position=jnp.int32(position)), len(problems))
    chosen = [problems[i] for i in islice(order, prompts)]
    return chosen, completion_keys(training_keys(state)[0], np.arange(position, position + prompts), group_size)


def _sample_and_grade(
    params: Params,
    problems: list[Problem],
    keys: Key[jax.Array, "P G"],
    sampler: ProblemSampler,
    weights: Mapping[Reward | IntrinsicReward, float],
    graders: Mapping[str, Reward],
    score: Scorer | None,
) -> CollectedGroups:
    """A group for every problem; graders run in threads while others are still sampled."""
    intrinsic = [reward for reward in weights if isinstance(reward, IntrinsicReward)]
    if intrinsic and score is None:
        raise ValueError("the reward uses the policy's own scores: give `score`, the jitted score_completions")
    verifiers = [reward for reward in weights if not isinstance(reward, IntrinsicReward)]
    parts, begin = [], time.perf_counter()
    with AsyncGrader(problems, {*verifiers, *graders.values()}) as grader:
        for done, part in sampler.sample.stream(params, sampler.prompts(problems), keys=keys):
            grader.add(done.tolist(), decode_completions(part, sampler.tokenizer))
            parts.append((done, part))
        rollouts = concat_in_order(parts)
        scores: Any = score and jax.device_get(score(params, rollouts.prompts, rollouts.tokens, rollouts.mask))
        sampled = time.perf_counter()
    grades = grader.grades
    rewards = [
        np.asarray(reward.of_scores(scores, jnp.asarray(rollouts.mask)))
        if isinstance(reward, IntrinsicReward)
        else grades[reward]
        for reward in weights
    ]
    groups = RolloutGroups(rollouts, np.stack(rewards, axis=-1), scores, np.zeros(len(problems), int))
    return CollectedGroups(
        groups,
        groups,
        problems,
        grader.completions,
        {name: grades[verifier] for name, verifier in graders.items()},
        tuple(weights.values()),
        gen_batches=1,
        seconds_sampling=sampled - begin,
        seconds_rewards=time.perf_counter() - sampled,
    )


def _signals(collected: CollectedGroups) -> int:
    return int(has_reward_variance(collected.sampled.rewards).sum())


def tree_index(groups: RolloutGroups, index: Array | slice) -> RolloutGroups:
    return jax.tree.map(lambda x: np.asarray(x)[index], groups)


def concat_padded(parts: Sequence[RolloutGroups]) -> RolloutGroups:
    """All groups, arrays padded to the longest."""

    def concat(*xs: np.ndarray) -> np.ndarray:
        shape = np.max([np.shape(x)[1:] for x in xs], axis=0) if np.ndim(xs[0]) > 1 else ()
        widths = [[(0, 0), *((0, longest - n) for longest, n in zip(shape, np.shape(x)[1:], strict=True))] for x in xs]
        return np.concatenate([np.pad(x, width) for x, width in zip(xs, widths, strict=True)])

    return jax.tree.map(concat, *parts) if len(parts) > 1 else parts[0]


def rollout_metrics(groups: CollectedGroups) -> dict[str, float | int]:
    """What a step logs of its rollouts; docs: README, "What a step logs"."""
    sampled, learned = groups.sampled, groups.learned
    lengths = np.asarray(sampled.rollouts.lengths)
    return {
        "reward_mean": float(groups.rewards.mean()),
        **{f"{name}_share": float(values.mean()) for name, values in groups.grades.items()},
        "frac_reward_zero_std": float(1 - has_reward_variance(sampled.rewards).mean()),
        "gen_batches": groups.gen_batches,
        "groups_learned": int(has_reward_variance(learned.rewards).sum()),
        "staleness_mean": float(learned.staleness.mean()),
        "length_mean": float(lengths.mean()),
        "tokens": int(lengths.sum()),
        "train_tokens": int(np.asarray(learned.rollouts.lengths).sum() + learned.rollouts.prompts.mask.sum()),
        "truncated_share": float(np.mean(sampled.rollouts.truncated)),
        "seconds_sampling": groups.seconds_sampling,
        "seconds_rewards": groups.seconds_rewards,
        "tokens_per_second": float(lengths.sum()) / groups.seconds_sampling,
    }


def sample_rows(groups: CollectedGroups) -> list[dict]:
    """Every completion of a step with its question and grades, one generated batch after the other."""
    lengths, rewards = np.asarray(groups.sampled.rollouts.lengths), groups.rewards
    return [
        {
            "index": problem.index,
            "question": problem.question,
            "answer": problem.answer,
            "completion": completion,
            "tokens": int(lengths[p, g]),
            "reward": float(rewards[p, g]),
            **{name: float(values[p, g]) for name, values in groups.grades.items()},
        }
        for p, problem in enumerate(groups.problems)
        for g, completion in enumerate(groups.completions[p])
    ]


class Replay:
    """Groups of earlier steps, learned from again in place of groups without a signal.

    Off-policy: the log-probabilities stay those of the policy that sampled them, at most `age` steps ago. `folder` has
    a file a step, so that an interrupted run finds the same groups.
    """

    def __init__(self, folder: Path, age: int):
        self.folder, self.age = folder, age

    def fill(self, step: int, groups: RolloutGroups, wanted: int) -> RolloutGroups:
        """This step's groups with a signal, and the newest earlier ones until there are `wanted`."""
        groups = tree_index(groups, has_reward_variance(groups.rewards))
        self._save(step, groups)
        parts, count = [groups], len(groups.staleness)
        for earlier in range(step - 1, step - 1 - self.age, -1):
            if count < wanted and self._file(earlier).exists():
                old = tree_index(self._load(earlier, groups), np.s_[: wanted - count])
                parts.append(old._replace(staleness=old.staleness + step - earlier))
                count += len(old.staleness)
        return concat_padded(parts)

    def _file(self, step: int) -> Path:
        return self.folder / f"{step}.npz"

    def _save(self, step: int, groups: RolloutGroups) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self._file(step)
        with (unfinished := target.with_suffix(".part")).open("wb") as file:
            np.savez(file, *jax.tree.leaves(groups))
        unfinished.replace(target)

    def _load(self, step: int, like: RolloutGroups) -> RolloutGroups:
        try:
            with np.load(self._file(step)) as arrays:
                return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in arrays.files])
        except (OSError, ValueError) as error:
            raise InputError(f"{self._file(step)} cannot be read ({error}); delete it to go on without") from error

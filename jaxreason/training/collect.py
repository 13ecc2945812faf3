"""What a step learns from: groups of completions that are sampled, graded, chosen, and perhaps learned again later."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxreason.errors import InputError
from jaxreason.models.scoring import Scores
from jaxreason.rewards.grading import AsyncGrader, Reward
from jaxreason.rewards.intrinsic import IntrinsicReward
from jaxreason.sampling.continuous_batching import concat_in_order
from jaxreason.sampling.rollout import ProblemSampler, decode_completions
from jaxreason.tasks import Problem
from jaxreason.types import Params, Rollouts

Score = Callable[..., Scores]
"""`score_completions` of some parameters: (prompts, tokens, mask) -> Scores."""


class RolloutGroups(NamedTuple):
    """Prompts with their completions, rewards, and what the model that wrote them thought of them."""

    rollouts: Rollouts
    rewards: Float[np.ndarray, "P K G"]
    """Of K kinds."""
    policy_scores: Scores | None
    staleness: Int[np.ndarray, "P"]
    """Steps since they were written."""


class CollectedGroups(NamedTuple):
    groups: RolloutGroups
    completions: list[list[str]]
    grades: dict[str, Float[np.ndarray, "P G"]]
    """By the name of the grader."""
    seconds_sampling: float
    """The policy's own scores, if any, included."""
    seconds_rewards: float
    """What sampling did not hide."""


def collect(
    params: Params,
    problems: Sequence[Problem],
    keys: Key[Array, "P G"],
    *,
    sampler: ProblemSampler,
    rewards: Sequence[Reward | IntrinsicReward],
    graders: Mapping[str, Reward],
    score: Callable[..., Scores] | None,
) -> CollectedGroups:
    """Samples and grades a group for every problem; graders run in threads while others are still sampled."""
    verifiers = {reward for reward in rewards if not isinstance(reward, IntrinsicReward)}
    parts, begin = [], time.perf_counter()
    with AsyncGrader(problems, verifiers | set(graders.values())) as grading:
        for done, part in sampler.sample.stream(params, sampler.prompts(problems), keys=keys):
            grading.add(done.tolist(), decode_completions(part, sampler.tokenizer))
            parts.append((done, part))
        rollouts = concat_in_order(parts)
        policy_scores = score and jax.device_get(score(params, rollouts.prompts, rollouts.tokens, rollouts.mask))
        sampled = time.perf_counter()
    known = grading.grades
    earned = [
        np.asarray(reward.of_scores(policy_scores, jnp.asarray(rollouts.mask)))
        if isinstance(reward, IntrinsicReward)
        else known[reward]
        for reward in rewards
    ]
    groups = RolloutGroups(rollouts, np.stack(earned, axis=1), policy_scores, np.zeros(len(problems), int))
    by_name = {name: known[grader] for name, grader in graders.items()}
    return CollectedGroups(groups, grading.completions, by_name, sampled - begin, time.perf_counter() - sampled)


def has_reward_variance(groups: RolloutGroups) -> Bool[np.ndarray, "P"]:
    """True where completions of a prompt earned differently: without that there is nothing to learn."""
    return (groups.rewards != groups.rewards[..., :1]).any(axis=(1, 2))


def tree_index(groups: RolloutGroups, which: np.ndarray | slice) -> RolloutGroups:
    return jax.tree.map(lambda x: np.asarray(x)[which], groups)


def concat_padded(parts: Sequence[RolloutGroups]) -> RolloutGroups:
    """All of them, arrays padded to the longest."""

    def together(*xs: np.ndarray) -> np.ndarray:
        shape = np.max([np.shape(x)[1:] for x in xs], axis=0) if np.ndim(xs[0]) > 1 else ()
        widths = [[(0, 0), *((0, most - own) for most, own in zip(shape, np.shape(x)[1:], strict=True))] for x in xs]
        return np.concatenate([np.pad(x, width) for x, width in zip(xs, widths, strict=True)])

    return jax.tree.map(together, *parts) if len(parts) > 1 else parts[0]


class Replay:
    """Groups of earlier steps, to be learned again in the place of groups without a signal.

    Off-policy: the log-probabilities stay those of the model that wrote them, `age` steps ago at most. They lie in
    `folder`, a file a step, so that a run that was interrupted finds what it would have had.
    """

    def __init__(self, folder: Path, age: int):
        self.folder, self.age = folder, age

    def fill(self, step: int, groups: RolloutGroups, wanted: int) -> RolloutGroups:
        """The groups of this step that differ, and the newest earlier ones until they are `wanted`."""
        groups = tree_index(groups, has_reward_variance(groups))
        self._keep(step, groups)
        parts, count = [groups], len(groups.staleness)
        for earlier in range(step - 1, step - 1 - self.age, -1):
            if count < wanted and self._file(earlier).exists():
                old = tree_index(self._load(earlier, groups), np.s_[: wanted - count])
                parts.append(old._replace(staleness=old.staleness + step - earlier))
                count += len(old.staleness)
        return concat_padded(parts)

    def _file(self, step: int) -> Path:
        return self.folder / f"{step}.npz"

    def _keep(self, step: int, groups: RolloutGroups) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self._file(step)
        with (half := place.with_suffix(".part")).open("wb") as file:
            np.savez(file, *jax.tree.leaves(groups))
        half.replace(place)

    def _load(self, step: int, like: RolloutGroups) -> RolloutGroups:
        try:
            with np.load(self._file(step)) as arrays:
                return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in arrays.files])
        except (OSError, ValueError) as error:
            raise InputError(f"{self._file(step)} cannot be read ({error}); delete it to go on without") from error

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
from jaxreason.rewards.grading import Grading, Reward
from jaxreason.rewards.intrinsic import Internal
from jaxreason.sampling.continuous_batching import join_parts
from jaxreason.sampling.rollout import Policy, texts
from jaxreason.tasks import Problem
from jaxreason.types import Params, Rollouts

Score = Callable[..., Scores]
"""`score_completions` of some parameters: (prompts, tokens, mask) -> Scores."""


class Groups(NamedTuple):
    """Prompts with their completions, rewards, and what the model that wrote them thought of them."""

    rollouts: Rollouts
    rewards: Float[np.ndarray, "P K G"]
    """Of K kinds."""
    own: Scores | None
    ages: Int[np.ndarray, "P"]
    """Steps since they were written."""


class Collected(NamedTuple):
    groups: Groups
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
    policy: Policy,
    rewards: Sequence[Reward | Internal],
    graders: Mapping[str, Reward],
    score: Callable[..., Scores] | None,
) -> Collected:
    """Samples and grades a group for every problem; graders run in threads while others are still sampled."""
    verifiers = {reward for reward in rewards if not isinstance(reward, Internal)}
    parts, begin = [], time.perf_counter()
    with Grading(problems, verifiers | set(graders.values())) as grading:
        for done, part in policy.sample.stream(params, policy.prompts(problems), keys=keys):
            grading.add(done.tolist(), texts(part, policy.tokenizer))
            parts.append((done, part))
        rollouts = join_parts(parts)
        own = score and jax.device_get(score(params, rollouts.prompts, rollouts.tokens, rollouts.mask))
        sampled = time.perf_counter()
    known = grading.grades
    earned = [
        np.asarray(reward.of_scores(own, jnp.asarray(rollouts.mask))) if isinstance(reward, Internal) else known[reward]
        for reward in rewards
    ]
    groups = Groups(rollouts, np.stack(earned, axis=1), own, np.zeros(len(problems), int))
    by_name = {name: known[grader] for name, grader in graders.items()}
    return Collected(groups, grading.completions, by_name, sampled - begin, time.perf_counter() - sampled)


def differing(groups: Groups) -> Bool[np.ndarray, "P"]:
    """True where completions of a prompt earned differently: without that there is nothing to learn."""
    return (groups.rewards != groups.rewards[..., :1]).any(axis=(1, 2))


def some(groups: Groups, which: np.ndarray | slice) -> Groups:
    return jax.tree.map(lambda x: np.asarray(x)[which], groups)


def joined(parts: Sequence[Groups]) -> Groups:
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

    def fill(self, step: int, groups: Groups, wanted: int) -> Groups:
        """The groups of this step that differ, and the newest earlier ones until they are `wanted`."""
        groups = some(groups, differing(groups))
        self._keep(step, groups)
        parts, count = [groups], len(groups.ages)
        for earlier in range(step - 1, step - 1 - self.age, -1):
            if count < wanted and self._file(earlier).exists():
                old = some(self._load(earlier, groups), np.s_[: wanted - count])
                parts.append(old._replace(ages=old.ages + step - earlier))
                count += len(old.ages)
        return joined(parts)

    def _file(self, step: int) -> Path:
        return self.folder / f"{step}.npz"

    def _keep(self, step: int, groups: Groups) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self._file(step)
        with (half := place.with_suffix(".part")).open("wb") as file:
            np.savez(file, *jax.tree.leaves(groups))
        half.replace(place)

    def _load(self, step: int, like: Groups) -> Groups:
        try:
            with np.load(self._file(step)) as arrays:
                return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in arrays.files])
        except (OSError, ValueError) as error:
            raise InputError(f"{self._file(step)} cannot be read ({error}); delete it to go on without") from error

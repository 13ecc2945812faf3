"""Rewards of whole batches, worked out in threads beside the sampler: a slow reward mostly waits for someone else."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from jaxreason.distributed.multihost import all_sum, owns_index
from jaxreason.tasks.problem import Problem

Reward = Callable[[str, Problem], float]
"""Total and pure: never raises, never hangs, never runs model text. May be called in several threads at once.

A reward with a method `of_group(completions, problem)` is asked for a whole group at once.
"""


class AsyncGrader:
    """Takes completions a group at a time, whenever they are there; `grades` has them all after the `with` block.

    Of several hosts each grades its share of the groups; all of them must ask for the grades."""

    def __init__(self, problems: Sequence[Problem], rewards: Collection[Reward]):
        self.problems, self.completions = problems, [[] for _ in problems]
        self._pending: dict[Reward, list[Future | None]] = {reward: [None] * len(problems) for reward in rewards}
        self._pool = ThreadPoolExecutor()

    def add(self, places: Iterable[int], groups: Iterable[list[str]]) -> None:
        """`group_size` are completions of the problems at `places`."""
        for place, group in zip(places, groups, strict=True):
            self.completions[place] = group
            for reward, pending in self._pending.items() if owns_index(place) else ():
                pending[place] = self._pool.submit(_grade, reward, group, self.problems[place])

    def __enter__(self) -> "AsyncGrader":
        return self

    def __exit__(self, error: type | None, *_) -> None:
        self._pool.shutdown(cancel_futures=error is not None)

    @property
    def grades(self) -> dict[Reward, np.ndarray]:
        """[P G] in float32, by reward."""
        none = [0.0] * max(map(len, self.completions), default=0)
        return {
            reward: all_sum(np.array([future.result() if future else none for future in pending], np.float32))
            for reward, pending in self._pending.items()
        }


def _grade(reward: Reward, group: list[str], problem: Problem) -> list[float]:
    of_group = getattr(reward, "of_group", None)
    values = of_group(group, problem) if of_group else [reward(text, problem) for text in group]
    grades = [float(value) for value in values]
    if not all(map(math.isfinite, grades)):
        raise ValueError(f"reward {grades} of {problem.question!r} is not finite; let the reward return numbers")
    return grades


def grade(completions: Sequence[list[str]], problems: Sequence[Problem], reward: Reward) -> np.ndarray:
    """Rewards [P G] in float32."""
    with AsyncGrader(problems, [reward]) as grading:
        grading.add(range(len(problems)), completions)
    return grading.grades[reward]

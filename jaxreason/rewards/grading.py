"""Grades batches in threads beside the sampler: a slow reward mostly waits for another process."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from jaxreason.distributed.multihost import all_sum, owns_index
from jaxreason.tasks.problem import Problem

Reward = Callable[[str, Problem], float]
"""Total and pure: never raises, never hangs, never runs model text. Called from several threads at once.

A reward with a method `of_group(completions, problem) -> list[float]` is called once per group instead.
"""


class AsyncGrader:
    """Grades groups of completions as they arrive; `grades` is complete after the `with` block.

    Each process grades its share of the groups; `grades` is collective: every process must read it.
    """

    def __init__(self, problems: Sequence[Problem], rewards: Collection[Reward]):
        self.problems = problems
        self.completions: list[list[str]] = [[] for _ in problems]
        self._pending: dict[Reward, list[Future | None]] = {reward: [None] * len(problems) for reward in rewards}
        self._pool = ThreadPoolExecutor()

    def add(self, indices: Iterable[int], groups: Iterable[list[str]]) -> None:
        """Submits `groups` of completions of the problems at `indices`; returns at once."""
        for index, group in zip(indices, groups, strict=True):
            self.completions[index] = group
            for reward, pending in self._pending.items() if owns_index(index) else ():
                pending[index] = self._pool.submit(_grade, reward, group, self.problems[index])

    def __enter__(self) -> "AsyncGrader":
        return self

    def __exit__(self, error: type | None, *_) -> None:
        self._pool.shutdown(cancel_futures=error is not None)

    @property
    def grades(self) -> dict[Reward, np.ndarray]:
        """Grades [P G] in float32, by reward; raises what a reward raised."""
        zeros = [0.0] * max(map(len, self.completions), default=0)
        return {
            reward: all_sum(np.array([future.result() if future else zeros for future in pending], np.float32))
            for reward, pending in self._pending.items()
        }


def _grade(reward: Reward, group: list[str], problem: Problem) -> list[float]:
    of_group = getattr(reward, "of_group", None)
    values = of_group(group, problem) if of_group else [reward(text, problem) for text in group]
    grades = [float(value) for value in values]
    if not all(map(math.isfinite, grades)):
        raise ValueError(f"rewards {grades} of {problem.question!r} are not finite; return finite numbers")
    return grades


def grade(completions: Sequence[list[str]], problems: Sequence[Problem], reward: Reward) -> np.ndarray:
    """Rewards [P G] in float32."""
    with AsyncGrader(problems, [reward]) as grader:
        grader.add(range(len(problems)), completions)
    return grader.grades[reward]

"""Evaluates a model on held-out problems: samples, grades, metrics with intervals."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Key

from jaxreason.evaluation.metrics import maj_at_k, pass_at_k
from jaxreason.evaluation.statistics import accuracy_interval
from jaxreason.rewards import numbers
from jaxreason.rewards.grading import AsyncGrader, Reward
from jaxreason.rewards.intrinsic import lenient_answers
from jaxreason.sampling.rollout import ProblemSampler, sample_problems
from jaxreason.tasks import Problem
from jaxreason.types import Params


class Evaluation(NamedTuple):
    summary: dict[str, float | int]
    samples: list[dict[str, Any]]
    """One row per completion, in the order of the problems."""


def evaluate(
    params: Params,
    problems: Sequence[Problem],
    *,
    sampler: ProblemSampler,
    group_size: int,
    key: Key[jax.Array, ""],
    graders: Mapping[str, Reward] = MappingProxyType({}),
) -> Evaluation:
    """Samples `group_size` completions of every problem and grades them with the strict and the lenient verifier.

    `pass@1`: strict, over `n` problems, with its standard error `se` and the ends of its 95 % interval `low` and
    `high`, on problems like these (`accuracy_interval`); `lenient_*`: a completion without a marked answer is graded by
    its last number; `NAME_*`: further `graders`; `pass@k` and `maj@k` (k = `group_size` > 1) are lenient; lengths are
    in tokens.
    """
    graders = {"strict": numbers.strict, "lenient": numbers.lenient, **graders}
    lengths, truncated = np.zeros((2, len(problems), group_size))
    seconds = 0.0
    with AsyncGrader(problems, set(graders.values())) as grader:
        for batch in sample_problems(sampler, params, problems, group_size=group_size, key=key):
            grader.add(batch.indices, batch.completions)
            lengths[batch.indices], truncated[batch.indices] = batch.rollouts.lengths, batch.rollouts.truncated
            seconds += batch.seconds

    completions, by_reward = grader.completions, grader.grades
    grades = {name: by_reward[reward].astype(np.float64) for name, reward in graders.items()}
    summary: dict[str, float | int] = {"n": len(problems)}
    for name, values in grades.items():
        prefix = "" if name == "strict" else f"{name}_"
        interval = accuracy_interval(values)
        summary |= {f"{prefix}pass@1": interval.mean, f"{prefix}se": interval.se}
        summary |= {f"{prefix}low": interval.low, f"{prefix}high": interval.high}
    if group_size > 1:
        answers = [lenient_answers(group, problem) for group, problem in zip(completions, problems, strict=True)]
        summary[f"pass@{group_size}"] = float(
            pass_at_k(group_size, grades["lenient"].sum(axis=1).astype(int), group_size).mean()
        )
        summary[f"maj@{group_size}"] = maj_at_k(answers, grades["lenient"], group_size, numbers.equal)
    summary |= {
        "length_mean": float(lengths.mean()),
        "truncated_share": float(truncated.mean()),
        "tokens": float(lengths.sum()),
        "seconds_sampling": seconds,
    }
    samples = [
        {
            "index": problem.index,
            "question": problem.question,
            "answer": problem.answer,
            "completion": completions[p][g],
            "tokens": int(lengths[p, g]),
            "truncated": bool(truncated[p, g]),
            **{name: values[p, g] for name, values in grades.items()},
        }
        for p, problem in enumerate(problems)
        for g in range(group_size)
    ]
    return Evaluation(summary, samples)

"""A model on held-out problems: samples, grades, and the numbers with their errors."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from jaxreason.evaluation.metrics import maj_at_k, mean_with_se, pass_at_k
from jaxreason.rewards import numbers
from jaxreason.rewards.grading import AsyncGrader, Reward
from jaxreason.sampling.rollout import ProblemSampler, sample_all
from jaxreason.tasks import Problem
from jaxreason.types import Params


class Evaluation(NamedTuple):
    summary: dict[str, float | int]
    samples: list[dict[str, Any]]
    """One row a completion, problems in the order given."""


def evaluate(
    params: Params,
    problems: Sequence[Problem],
    *,
    sampler: ProblemSampler,
    group_size: int,
    key: Key[Array, ""],
    graders: Mapping[str, Reward] = MappingProxyType({}),
) -> Evaluation:
    """Samples `group_size` completions of every problem and grades them strictly and leniently, side by side.

    `pass@1`, `se`: strict, over `n` problems, the error clustered by problem; `lenient_*`: the last number counts where
    no answer is marked; `NAME_*`: by further `graders`; `pass@k` and `maj@k` (k = `group_size`, more than one) are lenient;
    lengths are in tokens.
    """
    graders = {"strict": numbers.strict, "lenient": numbers.lenient, **graders}
    lengths, truncated = np.zeros((2, len(problems), group_size))
    seconds = 0.0
    with AsyncGrader(problems, set(graders.values())) as grading:
        for done in sample_all(sampler, params, problems, group_size=group_size, key=key):
            grading.add(done.rows, done.texts)
            lengths[done.rows], truncated[done.rows] = done.rollouts.lengths, done.rollouts.truncated
            seconds += done.seconds

    completions, by_reward = grading.completions, grading.grades
    grades = {name: by_reward[grader].astype(np.float64) for name, grader in graders.items()}
    summary: dict[str, float | int] = {"n": len(problems)}
    for name, values in grades.items():
        prefix = "" if name == "strict" else f"{name}_"
        summary[f"{prefix}pass@1"], summary[f"{prefix}se"] = mean_with_se(values)
    if group_size > 1:
        pairs = zip(completions, problems, strict=True)
        answers = [[numbers.extract_answer(text, problem, lenient=True) for text in group] for group, problem in pairs]
        summary[f"pass@{group_size}"] = float(pass_at_k(group_size, grades["lenient"].sum(axis=1), group_size).mean())
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

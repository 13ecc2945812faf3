"""A model on held-out problems: samples, grades, and the numbers with their errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from jaxreason.evaluation.metrics import maj_at_k, mean_with_se, pass_at_k
from jaxreason.rewards import numbers
from jaxreason.sampling.rollout import Policy, sample_all
from jaxreason.tasks import Problem
from jaxreason.types import Params


class Evaluation(NamedTuple):
    summary: dict[str, float | int]
    samples: list[dict[str, Any]]
    """One row a completion, problems in the order given."""


def evaluate(
    params: Params, problems: Sequence[Problem], *, policy: Policy, groups: int, key: Key[Array, ""]
) -> Evaluation:
    """Samples `groups` completions of every problem and grades them strictly and leniently, side by side.

    `pass@1`, `se`: strict, over `n` problems, the error clustered by problem; `lenient_*`: the last number counts where
    no answer is marked; `pass@k` and `maj@k` (k = `groups`, more than one) are lenient; lengths are in tokens.
    """
    completions: list[list[str]] = [[] for _ in problems]
    lengths, truncated = np.zeros((2, len(problems), groups))
    seconds = 0.0
    for done in sample_all(policy, params, problems, groups=groups, key=key):
        lengths[done.rows], truncated[done.rows] = done.rollouts.lengths, done.rollouts.truncated
        seconds += done.seconds
        for row, group in zip(done.rows, done.texts, strict=True):
            completions[row] = group

    pairs = list(zip(completions, problems, strict=True))
    strict = np.array([[numbers.strict(text, problem) for text in group] for group, problem in pairs])
    lenient = np.array([[numbers.lenient(text, problem) for text in group] for group, problem in pairs])
    summary: dict[str, float | int] = {"n": len(problems)}
    summary["pass@1"], summary["se"] = mean_with_se(strict)
    summary["lenient_pass@1"], summary["lenient_se"] = mean_with_se(lenient)
    if groups > 1:
        answers = [[numbers.stated_answer(text, problem, lenient=True) for text in group] for group, problem in pairs]
        summary[f"pass@{groups}"] = float(pass_at_k(groups, lenient.sum(axis=1), groups).mean())
        summary[f"maj@{groups}"] = maj_at_k(answers, lenient, groups, numbers.equal)
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
            "strict": strict[p, g],
            "lenient": lenient[p, g],
        }
        for p, problem in enumerate(problems)
        for g in range(groups)
    ]
    return Evaluation(summary, samples)

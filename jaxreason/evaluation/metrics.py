"""pass@k and majority votes from samples. NumPy, float64."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxreason.errors import InputError
from jaxreason.rewards.votes import majority_vote


def pass_at_k(
    n: int | np.integer | Int[np.ndarray, "..."], c: int | np.integer | Int[np.ndarray, "..."], k: int
) -> Float[np.ndarray, "..."]:
    """Unbiased estimate of the probability that one of k samples is correct, from c correct of n, per problem.

    1 - C(n - c, k) / C(n, k), as a product of k ratios (Chen et al. 2021, arXiv 2107.03374, eq. 1).
    """
    n, c = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(c, np.float64))
    if k < 1 or (k > n).any():
        raise InputError(f"k = {k} with n = {n.min():.0f} samples; pass@k needs 1 <= k <= n")
    if (c < 0).any() or (c > n).any():
        raise InputError(f"c is between {c.min():.0f} and {c.max():.0f}; give 0 <= c <= n correct samples")
    all_wrong = np.ones(n.shape)
    for drawn in range(k):  # times the probability that the next sample is wrong too; 0 from drawn = n - c
        all_wrong = all_wrong * np.maximum(n - c - drawn, 0) / (n - drawn)
    return np.asarray(1 - all_wrong)  # NumPy makes a scalar of a 0-d result


def maj_at_k(
    answers: Sequence[Sequence[str | None]],
    correct: Num[np.ndarray, "P G"] | Bool[np.ndarray, "P G"],
    k: int,
    equal: Callable[[str, str], bool],
) -> float:
    """Accuracy of the majority vote of k samples, averaged over the G // k disjoint blocks of each problem.

    `correct[p, g]` grades `answers[p][g]`. A block without answers is wrong; samples after the last full block are
    ignored.
    """
    problems, samples = correct.shape
    if len(answers) != problems or any(len(row) != samples for row in answers):
        raise InputError(f"answers do not have the shape {correct.shape} of correct; give one answer per grade")
    if not 1 <= k <= samples or problems == 0:
        raise InputError(f"k = {k} with {samples} samples of {problems} problems; maj@k needs 1 <= k <= samples")
    scores = []
    for row, grades in zip(answers, correct, strict=True):
        for start in range(0, samples - k + 1, k):
            winner = majority_vote(row[start : start + k], equal)
            scores.append(0.0 if winner is None else float(grades[start + winner]))
    return float(np.mean(scores))

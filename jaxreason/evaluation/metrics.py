"""Accuracy from samples, with error bars: pass@1, pass@k, majority vote. NumPy, float64."""

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxreason.errors import InputError
from jaxreason.rewards.votes import majority_vote


def mean_with_se(correct: Num[np.ndarray, "P G"] | Bool[np.ndarray, "P G"]) -> tuple[float, float]:
    """pass@1 and its standard error, clustered by problem: samples of one problem are not independent.

    With m_p the mean over the G samples of problem p: mean = sum(m_p) / P, se = sqrt(sum((m_p - mean)^2) / (P - 1) / P)
    (Miller 2024, arXiv 2411.00640). With one problem the se is infinite.
    """
    if correct.size == 0:
        raise InputError(f"correct has shape {correct.shape}; give at least one problem and one sample")
    per_problem = correct.astype(np.float64).mean(axis=1)
    problems = len(per_problem)
    se = per_problem.std(ddof=1) / sqrt(problems) if problems > 1 else np.inf
    return float(per_problem.mean()), float(se)


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


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a proportion: inside [0, 1], with good coverage near 0 and 1 (Wilson 1927).

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), with p = successes / n; z = 1.96 for 95 %.
    """
    if not 0 <= successes <= n or n == 0:
        raise InputError(f"{successes} successes of {n} trials; give 0 <= successes <= n and n >= 1")
    p = successes / n
    centre = p + z**2 / (2 * n)
    spread = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)

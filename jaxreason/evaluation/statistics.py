"""Intervals of accuracies and shares: the one place where they are made. NumPy and SciPy, float64.

Every interval names its estimand, what it is an interval for:

- `PROBLEMS`: the model's accuracy on problems like these. Samples of one problem are one cluster, so the number of
  problems counts, not the number of samples (Miller 2024, arXiv 2411.00640).
- `SEEDS`: the mean over training runs like these, on these problems: a t interval over the runs.
- `SEEDS_AND_PROBLEMS`: over training runs and problems like these: the variances of both added.
- `DIFFERENCE`: accuracy after minus accuracy before, on problems like these, paired by problem.

Shares are in [0, 1]. Their intervals are Wilson's (1927) with the effective number of samples n = p (1 - p) / se^2, as
in surveys (Dean and Pagano 2015): inside [0, 1], and not empty where all samples agree. Coverage is simulated in
tests/evaluation/test_statistics.py: 93 to 97 % on average over rates from 1 to 99 %. It falls to 92 % where training
runs differ much more than problems do, and to 90 % where the rate is 1 % of a hundred problems.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy.typing import ArrayLike
from scipy.stats import t as student_t
from scipy.stats import ttest_ind

from jaxreason.errors import InputError

PROBLEMS = "problems like these"
SEEDS = "training runs like these, on these problems"
SEEDS_AND_PROBLEMS = "training runs and problems like these"
DIFFERENCE = "after minus before, on problems like these"
Grades = Num[np.ndarray, "P G"] | Bool[np.ndarray, "P G"]


class Interval(NamedTuple):
    mean: float
    low: float
    high: float
    se: float
    """Standard error of the mean; infinite where one cluster cannot tell."""
    estimand: str
    level: float

    @property
    def errors(self) -> list[list[float]]:
        """Lengths of the bars below and above the mean, as matplotlib takes them for one point."""
        return [[self.mean - self.low], [self.high - self.mean]]

    def __str__(self) -> str:
        """`55.6 % [51.2, 59.9]`"""
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def accuracy_interval(grades: Grades, level: float = 0.95) -> Interval:
    """The mean grade of P problems with G samples each; estimand `PROBLEMS`.

    With m_p the mean of problem p: mean = sum(m_p) / P, se^2 = sum((m_p - mean)^2) / (P - 1) / P.
    """
    _check(grades.size)
    per_problem = grades.astype(np.float64).mean(axis=1)
    problems = len(per_problem)
    return _share_interval(
        per_problem.mean(), _variance_of_mean(per_problem), _quantile(level, problems - 1), problems, PROBLEMS, level
    )


def share_interval(hits: Num[np.ndarray, "P"], totals: Num[np.ndarray, "P"], level: float = 0.95) -> Interval:
    """The share sum(hits) / sum(totals) of samples that come in P clusters of unequal size; estimand `PROBLEMS`.

    se^2 = P / (P - 1) sum((hits_p - share totals_p)^2) / sum(totals)^2, linearised (Cochran 1977, section 6.3).
    Problems without a sample do not count.
    """
    hits, totals = (x[totals > 0].astype(np.float64) for x in (hits, totals))
    _check(len(totals))
    problems, share = len(totals), hits.sum() / totals.sum()
    variance = problems * _variance_of_mean(hits - share * totals) * problems / totals.sum() ** 2
    return _share_interval(share, variance, _quantile(level, problems - 1), problems, PROBLEMS, level)


def seeds_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean over S training runs of any number; estimand `SEEDS`: mean -+ t_(S-1) sd / sqrt(S)."""
    runs = np.asarray(values, np.float64)
    _check(len(runs))
    return _mean_interval(runs, SEEDS, level)


def seeds_and_problems_interval(
    per_problem: Float[np.ndarray, "S P"] | Sequence[Float[np.ndarray, "P"]], level: float = 0.95
) -> Interval:
    """The mean over S training runs and the P problems of each, from each problem's mean grade in each run; estimand
    `SEEDS_AND_PROBLEMS`.

    The variance over runs (less what the residuals explain of it) and that over problems, each with its own quantile of
    t: (z se)^2 = t_(S-1)^2 v_runs + t_(P-1)^2 v_problems. With one run the interval is that of ignorance, 0 to 1.
    """
    grid = np.asarray(per_problem, np.float64)
    _check(grid.size)
    seeds, problems = grid.shape
    run_means, problem_means = grid.mean(axis=1), grid.mean(axis=0)
    residuals = grid - run_means[:, None] - problem_means + grid.mean()
    of_residuals = (residuals**2).sum() / max((seeds - 1) * (problems - 1), 1) / grid.size
    over_runs = max(_variance_of_mean(run_means) - of_residuals, 0.0)
    over_problems = _variance_of_mean(problem_means)
    variance, squares = over_runs + over_problems, [_quantile(level, n - 1) ** 2 for n in (seeds, problems)]
    z = np.sqrt(squares[1] + (squares[0] - squares[1]) * (over_runs / variance if 0 < variance < np.inf else 0))
    return _share_interval(grid.mean(), variance, z, problems, SEEDS_AND_PROBLEMS, level)


def runs_interval(
    per_problem: Float[np.ndarray, "S P"] | Sequence[Float[np.ndarray, "P"]], level: float = 0.95
) -> Interval:
    """`seeds_and_problems_interval` of several runs; of one, `accuracy_interval`, whose estimand is `PROBLEMS`."""
    if len(per_problem) > 1:
        return seeds_and_problems_interval(per_problem, level)
    return accuracy_interval(np.asarray(per_problem[0])[:, None], level)


def difference_interval(
    before: Grades, after: Num[np.ndarray, "Q H"] | Bool[np.ndarray, "Q H"], level: float = 0.95
) -> Interval:
    """Accuracy after minus before on the same P problems, in the same order; estimand `DIFFERENCE`.

    A t interval of the problems' differences d_p, to which +1/2 and -1/2 of a problem are added, and one of no
    difference (Agresti and Min 2005): where few problems differ, a plain one is too narrow.
    """
    if len(before) != len(after):
        raise InputError(f"{len(before)} problems before and {len(after)} after; give the same ones, in order")
    _check(len(before))
    differences = after.astype(np.float64).mean(axis=1) - before.astype(np.float64).mean(axis=1)
    problems, mean = len(differences), float(differences.mean())
    weight = 1 / min(before.shape[1], after.shape[1])
    centre = differences.sum() / (problems + 2 * weight)
    variance = ((differences**2).sum() + weight) / (problems + 2 * weight) - centre**2
    half = _quantile(level, problems - 1) * np.sqrt(variance / (problems + 2 * weight))
    low, high = max(-1.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))
    return Interval(mean, low, high, np.sqrt(_variance_of_mean(differences)), DIFFERENCE, level)


def bootstrap_intervals(
    statistics: Callable[[Int[np.ndarray, "B P"]], Sequence[Float[np.ndarray, "B"]]],
    problems: int,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[tuple[float, float]]:
    """Of each of the statistics, which take how often each of P problems is drawn; the percentiles of B draws."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(problems, np.full(problems, 1 / problems), size=draws)
    ends = [50 * (1 - level), 50 * (1 + level)]
    return [tuple(np.nanpercentile(values, ends).tolist()) for values in statistics(drawn)]


class Peak(NamedTuple):
    step: int
    """The middle of the window with the highest mean, counted from 1."""
    value: float
    fall: float
    """The mean of that window minus the mean of the last one."""
    falls: bool
    """Whether the curve falls, at the level's confidence."""


def peak_and_fall(values: ArrayLike, level: float = 0.95) -> Peak:
    """Where a noisy curve of T points is highest, and whether it ends below: Welch's one-sided t test.

    The highest of many means is high by chance as well. So even points choose the window (of a sixth of the curve), odd
    points are compared; a curve that does not fall is said to in at most 1 - level of all cases, if the noise of its
    points is independent. Fewer than 18 points never fall.
    """
    points = np.asarray(values, np.float64)
    even, odd = points[::2], points[1::2]
    width = max(1, len(points) // 12)  # of either half
    first = int(np.convolve(even, np.ones(width), mode="valid")[: max(1, len(odd) - width + 1)].argmax())
    peak, last = odd[first : first + width], odd[-width:]
    if not len(odd):
        return Peak(1, float(points[0]), 0.0, False)
    fall = float(peak.mean() - last.mean())
    apart = width >= 3 and first + width <= len(odd) - width and fall > 0
    chance = np.asarray(ttest_ind(peak, last, equal_var=False, alternative="greater"))[1] if apart else 1.0
    falls = not chance >= 1 - level  # NaN where neither window varies
    return Peak(2 * first + width, float(peak.mean()), fall, bool(falls))


def upper_bound(trials: int, level: float = 0.95) -> float:
    """One-sided bound on the rate of an event that none of n independent trials showed: 1 - (1 - level)^(1/n)."""
    _check(trials)
    return float(1 - (1 - level) ** (1 / trials))


def _share_interval(share: float, variance: float, z: float, problems: int, estimand: str, level: float) -> Interval:
    """Wilson's interval with n = p (1 - p) / (variance + p (1 - p) / P^2): samples of one problem that happen to differ
    may hide that others agree, so the samples of one of the P problems count as one."""
    share = float(share)
    spread = share * (1 - share)
    n = spread / (variance + spread / problems**2) if variance else float(problems)
    centre, half = share * n + z**2 / 2, z * np.sqrt(n * spread + z**2 / 4)
    low, high = max(0.0, (centre - half) / (n + z**2)), min(1.0, (centre + half) / (n + z**2))
    return Interval(share, min(low, share), max(high, share), float(np.sqrt(variance)), estimand, level)


def _mean_interval(values: Float[np.ndarray, "S"], estimand: str, level: float) -> Interval:
    mean, se = float(values.mean()), float(np.sqrt(_variance_of_mean(values)))
    half = _quantile(level, len(values) - 1) * se
    return Interval(mean, mean - half, mean + half, se, estimand, level)


def _variance_of_mean(values: Float[np.ndarray, "N"]) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else np.inf


@cache
def _quantile(level: float, freedom: int) -> float:
    """Of Student's t, two-sided."""
    return float(student_t.ppf((1 + level) / 2, max(freedom, 1)))


def _check(count: int) -> None:
    if count < 1:
        raise InputError("there is nothing to measure: give at least one problem and one sample")

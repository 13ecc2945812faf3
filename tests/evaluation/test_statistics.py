"""Intervals against hand-derived numbers, and their coverage against a known truth, by simulation."""

from functools import cache

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binomtest, t

from jaxreason.errors import InputError
from jaxreason.evaluation.statistics import (
    accuracy_interval,
    difference_interval,
    peak_and_fall,
    seeds_and_problems_interval,
    seeds_interval,
    share_interval,
    upper_bound,
)

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99)
DRAWS = 400


def test_an_accuracy_by_hand():
    # per-problem means 1, 0.5, 0: mean 0.5, variance 0.25, se^2 = 0.25 / 3
    interval = accuracy_interval(np.array([[1, 1], [1, 0], [0, 0]]))
    assert (interval.mean, interval.se) == pytest.approx((0.5, np.sqrt(0.25 / 3)))
    assert interval.estimand == "problems like these"


def test_one_sample_a_problem_is_wilsons_interval():
    """But for the quantile of t and the samples of one problem, which hardly matter among two thousand."""
    grades = np.arange(2000)[:, None] < 300
    low, high = binomtest(300, 2000).proportion_ci(method="wilson")
    assert accuracy_interval(grades)[1:3] == pytest.approx((low, high), rel=1e-3)


def test_copies_of_a_sample_tell_nothing():
    grades = np.arange(200)[:, None] % 3 == 0
    once, copied = (accuracy_interval(np.repeat(grades, n, axis=1)) for n in (1, 8))
    assert copied == pytest.approx(once)


def test_clusters_of_equal_size_make_a_share_an_accuracy():
    grades = np.random.default_rng(0).random((60, 4)) < 0.3
    share = share_interval(grades.sum(axis=1), np.full(60, 4))
    assert share[:4] == pytest.approx(accuracy_interval(grades)[:4])


def test_seeds_have_a_t_interval():
    mean, low, high, *_ = seeds_interval([0.8, 0.9, 0.94])
    half = t.ppf(0.975, 2) * np.std([0.8, 0.9, 0.94], ddof=1) / np.sqrt(3)
    assert (mean, low, high) == pytest.approx((0.88, 0.88 - half, 0.88 + half))


def test_nothing_seen_has_an_upper_bound():
    assert upper_bound(59) == pytest.approx(0.0495, abs=1e-4)  # the rule of three: about 3 / n
    assert (1 - upper_bound(59)) ** 59 == pytest.approx(0.05)


def test_what_cannot_be_known_is_wide():
    for interval in (accuracy_interval(np.ones((1, 8))), seeds_and_problems_interval(np.full((1, 50), 0.5))):
        assert interval.high - interval.low > 0.9
    nothing = accuracy_interval(np.zeros((50, 8)))
    assert nothing.low == 0 and 3 / 50 < nothing.high < 5 / 50
    with pytest.raises(InputError, match="nothing to measure"):
        accuracy_interval(np.zeros((0, 1)))
    with pytest.raises(InputError, match="50 problems before and 49 after"):
        difference_interval(np.zeros((50, 1)), np.zeros((49, 1)))


@cache
def centre(rate: float, sd: float) -> float:
    """The logit whose normal mixture with this standard deviation has this mean."""
    deviations = sd * np.random.default_rng(0).standard_normal(20_000)
    return brentq(lambda x: expit(x + deviations).mean() - rate, -40, 40)


def logits(rng, rate: float, sd: float, shape):
    return centre(rate, sd) + sd * rng.standard_normal(shape)


def samples(rng, logits, samples: int):
    return rng.random((*logits.shape, samples)) < expit(logits)[..., None]


def accuracy(rng, rate, problems, group, sd):
    return accuracy_interval(samples(rng, logits(rng, rate, sd, problems), group)), rate


def unequal_shares(rng, rate, problems, group, sd):
    totals = rng.integers(0, 2 * group, problems)
    return share_interval(rng.binomial(totals, expit(logits(rng, rate, sd, problems))), totals), rate


def paired_difference(rng, rate, problems, group, sd):
    before, gain = logits(rng, rate, sd, problems), 1.0
    deviations = sd * np.random.default_rng(0).standard_normal(20_000)
    truth = expit(centre(rate, sd) + gain + deviations).mean() - rate
    return difference_interval(samples(rng, before, group), samples(rng, before + gain, group)), truth


def over_seeds(rng, rate, problems, group, sd, seeds=3, seed_sd=0.3):
    of_problem, of_seed = sd * rng.standard_normal(problems), seed_sd * rng.standard_normal((seeds, 1))
    grades = samples(rng, centre(rate, np.hypot(sd, seed_sd)) + of_problem + of_seed, group)
    return seeds_and_problems_interval(grades.mean(axis=2)), rate


def unstable_seeds(rng, rate, problems, group, sd):
    return over_seeds(rng, rate, problems, group, sd, seeds=5, seed_sd=1.0)


CASES = [(100, 1, 2.0), (200, 8, 2.0), (200, 8, 0.5)]  # problems, samples of each, how much problems differ (logits)
COVERED = [(make, *case) for make in (accuracy, unequal_shares, paired_difference, over_seeds) for case in CASES]
COVERED += [(unstable_seeds, *case) for case in CASES[:2]]  # the third: 92 %


@pytest.mark.parametrize(("make", "problems", "group", "sd"), COVERED)
def test_an_interval_covers_the_truth(make, problems, group, sd):
    rng, covered = np.random.default_rng(1), []
    for rate in RATES:
        intervals = (make(rng, rate, problems, group, sd) for _ in range(DRAWS))
        covered.append(np.mean([interval.low <= truth <= interval.high for interval, truth in intervals]))
    print(f"{make.__name__} {problems} x {group}, sd {sd}: mean {np.mean(covered):.3f}, least {min(covered):.3f}")
    assert 0.93 <= np.mean(covered) <= 0.97
    assert min(covered) >= 0.90 - 2 * np.sqrt(0.9 * 0.1 / DRAWS)  # 90 %, and the simulation's own error


@pytest.mark.parametrize("steps", [30, 60, 120])
def test_a_flat_curve_seldom_falls(steps):
    """Shares of right completions of 64 a step that rise for a third of the steps and stay."""
    rng = np.random.default_rng(2)
    curve = np.minimum(0.3 + 0.4 * np.arange(steps) / (steps / 3), 0.7)
    falling = np.where(np.arange(steps) < 2 * steps / 3, curve, 0.5)
    falls = {name: 0 for name in ("flat", "falling")}
    for _ in range(1000):
        falls["flat"] += peak_and_fall(rng.binomial(64, curve) / 64).falls
        falls["falling"] += peak_and_fall(rng.binomial(64, falling) / 64).falls
    assert falls["flat"] <= 65  # 5 %, and two standard deviations of such a count
    assert falls["falling"] >= {30: 0, 60: 800, 120: 990}[steps]
    assert not peak_and_fall([0.5]).falls

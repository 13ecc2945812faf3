"""Shares, success rates and their change, against results by hand."""

import numpy as np
import pytest

from jaxreason.analysis import (
    Labelled,
    PatternMonitor,
    crossover,
    decompose,
    label_samples,
    pass_curve,
    path_coverage,
    pattern_stats,
    rank_change_ratio,
)
from jaxreason.errors import InputError
from jaxreason.evaluation import accuracy_interval


def draw(seed, shares, success, problems=50, each=4):
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(shares), problems * each, p=list(shares.values()))
    right = rng.random(len(labels)) < np.array([success[label] for label in labels])
    return Labelled(np.repeat(np.arange(problems), each), labels, right)


BEFORE = draw(0, {"a": 0.5, "b": 0.4, "c": 0.1}, {"a": 0.2, "b": 0.9, "c": 0.5})
AFTER = draw(1, {"a": 0.1, "b": 0.7, "d": 0.2}, {"a": 0.3, "b": 0.9, "d": 0.6})


def test_the_terms_add_up_to_the_change_of_accuracy():
    terms = decompose(BEFORE, AFTER)
    change = AFTER.right.mean() - BEFORE.right.mean()
    assert terms.total == pytest.approx(change, abs=1e-12)
    assert terms.selection + terms.execution + terms.interaction == pytest.approx(change, abs=1e-12)


def test_the_terms_by_hand():
    """a: 2 of 8 correct, b: 4 of 4; then a: 3 of 6, b: 6 of 6. Shares 2/3 and 1/3, then 1/2 and 1/2."""
    before = Labelled(np.arange(12), np.array(list("aaaaaaaabbbb")), np.arange(12) % 4 == 0)
    before = before._replace(right=np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1], bool))
    after = Labelled(np.arange(12), np.array(list("aaaaaabbbbbb")), np.array([1, 1, 1, 0, 0, 0, *[1] * 6], bool))
    terms = decompose(before, after)
    assert terms.total == pytest.approx(9 / 12 - 6 / 12, abs=1e-12)
    assert terms.selection == pytest.approx(-1 / 6 * 1 / 4 + 1 / 6 * 1, abs=1e-12)
    assert terms.execution == pytest.approx(2 / 3 * 1 / 4, abs=1e-12)
    assert terms.interaction == pytest.approx(-1 / 6 * 1 / 4, abs=1e-12)


def test_a_change_of_shares_alone_is_selection():
    labels = np.array(["a", "b"] * 50)
    before = Labelled(np.arange(100), labels, labels == "b")
    after = before._replace(labels=np.array(["b"] * 100), right=np.ones(100, bool))
    terms = decompose(before, after)
    assert (terms.selection, terms.execution, terms.interaction) == (0.5, 0.0, 0.0)
    low, high = terms.intervals["selection"]
    assert low < 0.5 < high


def test_coverage_of_intervals():
    shares, success = ({"a": 0.6, "b": 0.4}, {"a": 0.7, "b": 0.3}), {"a": 0.2, "b": 0.8}
    truth, hits = (0.7 - 0.6) * 0.2 + (0.3 - 0.4) * 0.8, 0
    for seed in range(100):
        sides = (draw(2 * seed + i, shares[i], success) for i in (0, 1))
        low, high = decompose(*sides, draws=200).intervals["selection"]
        hits += low <= truth <= high
    assert 88 <= hits <= 100


def test_patterns_have_intervals_clustered_by_problem():
    stats = pattern_stats(BEFORE, ["never"])
    a = BEFORE.right[BEFORE.labels == "a"]
    assert stats["a"].count == len(a) and stats["a"].success == a.mean()
    uses = accuracy_interval((BEFORE.labels == "a").reshape(50, 4))
    assert stats["a"].share_interval == pytest.approx((uses.low, uses.high))
    low, high = stats["a"].success_interval
    assert low < a.mean() < high
    copied = Labelled(*(np.repeat(x, 2) for x in BEFORE))  # copies of a completion tell nothing new
    assert pattern_stats(copied)["a"].success_interval == pytest.approx((low, high))
    assert sum(pattern.share for pattern in stats.values()) == pytest.approx(1)
    assert stats["never"].count == 0 and np.isnan(stats["never"].success)


def test_a_monitor_keeps_the_names_of_earlier_steps():
    monitor = PatternMonitor(lambda text: text)
    rows = [("a", 1), ("a", 0), ("way b", 1), ("way b", 1)]
    samples = [{"index": 0, "completion": text, "lenient": grade} for text, grade in rows]
    first = monitor(samples)
    expected = {"pattern_a_share": 0.5, "pattern_a_success": 0.5, "pattern_way_b_share": 0.5}
    assert first == expected | {"pattern_way_b_success": 1.0}
    assert monitor(samples[:2]) == expected | {"pattern_a_share": 1.0, "pattern_way_b_share": 0.0}
    with pytest.raises(InputError, match="no samples"):
        monitor([])


def test_ranks():
    mask = np.array([[[True, True, True, False]]])
    base, tuned = np.array([[[0, 2, 0, 5]]]), np.array([[[0, 1, 0, 0]]])
    assert path_coverage(base, mask) == pytest.approx(2 / 3)
    assert rank_change_ratio(base, tuned, mask) == pytest.approx(1 / 3)
    assert label_samples([{"index": 3, "completion": "x", "lenient": 0.0}], str.upper).labels.tolist() == ["X"]


def test_pass_at_k_curves_cross():
    broad = np.tile([True, *[False] * 15], (8, 1))  # solves every problem in 1 of 16 samples
    sharp = np.repeat([[True] * 16, [False] * 16], [4, 4], axis=0)  # solves half of the problems always
    curves = pass_curve(broad), pass_curve(sharp)
    assert curves[0][1].mean() == pytest.approx(1 / 16) and curves[0][16].mean() == pytest.approx(1)
    assert [values.mean() for values in curves[1].values()] == [0.5] * 5
    assert crossover(*curves) == 8  # 8 of 16 samples include the correct one with probability 1/2
    assert crossover(curves[1], curves[1]) is None

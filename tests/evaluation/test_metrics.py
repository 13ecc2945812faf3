"""The estimators against enumeration, and against results by hand."""

from itertools import combinations, permutations

import numpy as np
import pytest

from jaxreason.errors import InputError
from jaxreason.evaluation.metrics import maj_at_k, pass_at_k


def same(a, b):
    return a == b


def test_pass_at_k_by_counting_subsets():
    for n in range(1, 8):
        for c in range(n + 1):
            samples = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                subsets = [any(subset) for subset in combinations(samples, k)]
                assert pass_at_k(n, c, k) == pytest.approx(sum(subsets) / len(subsets), abs=1e-12)


def test_pass_at_k_of_many_problems():
    estimates = pass_at_k(200, np.array([0, 1, 100, 200]), 100)
    # one correct of 200 is among 100 drawn with probability 1/2
    np.testing.assert_allclose(estimates, [0, 0.5, 1, 1], atol=1e-12)
    assert estimates.dtype == np.float64
    for n, c, k in ((3, 1, 4), (3, 1, 0), (3, 4, 1), (3, -1, 1)):
        with pytest.raises(InputError):
            pass_at_k(n, np.array([0, c]), k)


def test_maj_at_k_by_counting_every_order():
    """Each order of A A B C is a problem; the first of the most frequent answers of a block wins."""
    orders = list(permutations("AABC"))
    correct = np.array([[answer == "A" for answer in order] for order in orders])
    for k in (1, 2, 3, 4):
        scores = []
        for order in orders:
            for start in range(0, 4 - k + 1, k):
                block = order[start : start + k]
                largest = max(block.count(answer) for answer in block)
                scores.append(next(answer for answer in block if block.count(answer) == largest) == "A")
        assert maj_at_k(orders, correct, k, same) == pytest.approx(np.mean(scores))
    assert maj_at_k(orders, correct, 1, same) == pytest.approx(correct.mean())
    # blocks of two: BB is wrong, AA is right
    assert maj_at_k(["BBAA"], np.array([[0, 0, 1, 1]]), 2, same) == 0.5
    assert maj_at_k([[None, None]], np.array([[0, 0]]), 2, same) == 0.0
    for k in (0, 5):
        with pytest.raises(InputError):
            maj_at_k(orders, correct, k, same)

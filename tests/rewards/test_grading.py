"""Rewards of a batch: beside the caller's own work, in the places they belong to, and errors are not swallowed."""

import threading

import numpy as np
import pytest

from jaxreason.rewards import AsyncGrader
from jaxreason.tasks import Problem

PROBLEMS = [Problem(question="", answer=answer, solution="", index=0) for answer in "12"]


def test_rewards_are_worked_out_while_the_caller_goes_on():
    go = threading.Event()

    def slow(text, problem):
        assert go.wait(timeout=5)
        return float(text == problem.answer)

    with AsyncGrader(PROBLEMS, [slow]) as grading:
        grading.add([1], [["2", "1", "1"]])  # comes back although no reward can be finished yet
        go.set()
        grading.add([0], [["1", "2", "1"]])
    np.testing.assert_array_equal(grading.grades[slow], [[1, 0, 1], [1, 0, 0]])
    assert grading.completions == [["1", "2", "1"], ["2", "1", "1"]]


def test_a_reward_that_raises_is_heard():
    def broken(text, problem):
        raise ZeroDivisionError

    with AsyncGrader(PROBLEMS[:1], [broken]) as grading:
        grading.add([0], [["1"]])
    with pytest.raises(ZeroDivisionError):
        _ = grading.grades

"""Asynchronous grading: returns at once, keeps the order of problems, and raises the errors of rewards."""

import threading

import numpy as np
import pytest

from jaxreason.rewards import AsyncGrader
from jaxreason.tasks import Problem

PROBLEMS = [Problem(question="", answer=answer, solution="", index=0) for answer in "12"]


def test_grading_runs_beside_the_caller():
    released = threading.Event()

    def slow(text, problem):
        assert released.wait(timeout=5)
        return float(text == problem.answer)

    with AsyncGrader(PROBLEMS, [slow]) as grader:
        grader.add([1], [["2", "1", "1"]])  # returns although no reward can finish yet
        released.set()
        grader.add([0], [["1", "2", "1"]])
    np.testing.assert_array_equal(grader.grades[slow], [[1, 0, 1], [1, 0, 0]])
    assert grader.completions == [["1", "2", "1"], ["2", "1", "1"]]


def test_the_error_of_a_reward_is_raised():
    def broken(text, problem):
        raise ZeroDivisionError

    with AsyncGrader(PROBLEMS[:1], [broken]) as grader:
        grader.add([0], [["1"]])
    with pytest.raises(ZeroDivisionError):
        _ = grader.grades

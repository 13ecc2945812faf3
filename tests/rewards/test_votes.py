"""Votes by hand; early stopping against every order of the answers."""

import math
from itertools import permutations, product

import pytest

from jaxreason.errors import InputError
from jaxreason.rewards.numbers import extract_answer
from jaxreason.rewards.votes import (
    borda_weights,
    cluster_answers,
    is_decided,
    majority_vote,
    votes_needed,
    weighted_vote,
)
from jaxreason.tasks import Problem


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["7", "8", "8"], 1),
        (["7", "8", "8", "7"], 0),  # a tie goes to the first seen
        ([None, None, "3"], 2),  # None does not vote
        ([None, None], None),
        ([], None),
        (["3", "1/2", "2", "0.5"], 1),  # equal numbers are equal answers
    ],
)
def test_majority_vote(answers, winner):
    assert majority_vote(answers) == winner


def test_equal_answers_are_one_cluster():
    problem = Problem("?", "83", "", 0)
    texts = ["so x = 83", "83", "83.0", r"\boxed{83}", r"\boxed{84}", "#### $83", "none"]
    answers = [extract_answer(text, problem, lenient=True) for text in texts]
    assert cluster_answers(answers) == [[0, 1, 2, 3, 5], [4]]


def test_votes_with_weights_and_ranks():
    answers = ["1", "2", "2", "1", "3"]
    assert weighted_vote(answers, [0.5, 0.2, 0.2, 0.1, 0.55]) == 0
    assert weighted_vote(answers, [0.5, 0.2, 0.2, 0.0, 0.55]) == 4
    assert weighted_vote(answers, [math.nan, 0.2, 0.2, 0.1, math.inf]) == 1  # a non-finite weight has no vote
    assert weighted_vote(answers, [math.nan] * 5) is None
    assert borda_weights([0.1, 0.9, math.nan, 0.5], power=1.0) == pytest.approx([1, 3, math.nan, 2], nan_ok=True)
    assert borda_weights([0.1, 0.9, 0.5], power=0.0) == [1, 1, 1]
    assert borda_weights([4.0, 4.0], power=0.5) == [2**0.5, 1]
    with pytest.raises(InputError, match="5 answers have 1 weights"):
        weighted_vote(answers, [1.0])
    with pytest.raises(InputError, match="a vote of weight -2 elects what is rare: give at least 0"):
        weighted_vote(["1", "1", "2"], [-2.0, -1.0, -2.5])
    assert weighted_vote(["1", "2"], [-math.inf, 0.5]) == 1


def test_a_vote_is_decided_when_no_further_answer_can_change_it():
    """Every sequence of up to three answers, and every continuation by up to two."""
    answers = ["1", "2", "3", None]
    for seen in range(4):
        for begun in product(answers, repeat=seen):
            for left in range(3):
                ends = {majority_vote([*begun, *rest]) for rest in product(answers, repeat=left)}
                winners = {None if end is None or end >= seen else begun[end] for end in ends}
                # a vote without a winner so far is open, unless no answer remains
                known = len(ends) == 1 and (None not in winners or left == 0)
                assert is_decided(begun, left) == known, (begun, left)
    for order in permutations(["1", "1", "1", "2", "2", "3"]):
        needed = votes_needed(order)
        assert majority_vote(order[:needed]) == majority_vote(order)
        assert not is_decided(order[: needed - 1], len(order) - needed + 1)

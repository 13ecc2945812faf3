"""Words of the lexicons, counted by hand."""

import pytest

from jaxreason.analysis import words_per_thousand


def test_words_match_in_their_inflections():
    text = "But I tried another way. Checking: 3+4=7. However, assume it fails; testing, verified. Going back again."
    # of 18 words: another, tried, assume | but, however, again | checking, testing, verified, back
    expected = {"branching": 3 / 18e-3, "backtracking": 3 / 18e-3, "verification": 4 / 18e-3}
    assert words_per_thousand([text, ""]) == pytest.approx(expected)
    assert words_per_thousand(["butter backpack tests", "rebut contest"]) == pytest.approx(
        {"branching": 0, "backtracking": 0, "verification": 200}
    )
    assert words_per_thousand([]) == {"branching": 0, "backtracking": 0, "verification": 0}

"""One answer from many: clusters of equal answers, and votes among them. Plain Python."""

import math
from collections.abc import Callable, Sequence

from jaxreason.errors import InputError
from jaxreason.rewards import numbers

Equal = Callable[[str, str], bool]
Answers = Sequence[str | None]
"""Final answers in the order they were given; None where none could be parsed."""


def clusters(answers: Answers, equal: Equal = numbers.equal) -> list[list[int]]:
    """Places of equal answers together, in the order of each cluster's first; those of None are in none.

    An answer joins the first cluster whose first member it equals.
    """
    found: list[list[int]] = []
    for place, answer in enumerate(answers):
        if answer is not None:
            same = next((cluster for cluster in found if equal(answers[cluster[0]], answer)), None)
            if same is None:
                found.append(same := [])
            same.append(place)
    return found


def majority_vote(answers: Answers, equal: Equal = numbers.equal) -> int | None:
    """Place of the first answer of the largest cluster; a tie goes to the cluster seen first; None if there is none.

    Self-consistency (Wang et al., arXiv 2203.11171).
    """
    return weighted_vote(answers, [1.0] * len(answers), equal)


def weighted_vote(answers: Answers, weights: Sequence[float], equal: Equal = numbers.equal) -> int | None:
    """The same by the sum of weights in a cluster; an answer whose weight is not a finite number does not vote."""
    if len(weights) != len(answers):
        raise InputError(f"{len(answers)} answers have {len(weights)} weights: give each its own")
    voting = [answer if math.isfinite(w) else None for answer, w in zip(answers, weights, strict=True)]
    totals = {cluster[0]: sum(weights[place] for place in cluster) for cluster in clusters(voting, equal)}
    return max(totals, key=totals.__getitem__, default=None)


def borda_weights(scores: Sequence[float], power: float = 0.5) -> list[float]:
    """(N - rank + 1)^power for each of N scores, rank 1 the highest, equal ones in their order; NaN stays NaN.

    Votes weighted by the rank of a confidence (Kang et al., arXiv 2502.18581). power 0 is the majority vote; the larger
    it is, the more the best alone decides.
    """
    known = [place for place, score in enumerate(scores) if math.isfinite(score)]
    best_first = sorted(known, key=lambda place: -scores[place])
    weights = [math.nan] * len(scores)
    for rank, place in enumerate(best_first, 1):
        weights[place] = (len(known) - rank + 1) ** power
    return weights


def decided(answers: Answers, remaining: int, equal: Equal = numbers.equal) -> bool:
    """True if no `remaining` further answers can change the majority."""
    found = clusters(answers, equal)
    if not found:
        return remaining == 0
    leader = max(found, key=len)
    rivals = [(len(cluster), cluster[0]) for cluster in found if cluster is not leader] + [(0, len(answers))]
    return all(
        len(leader) > count + remaining or (len(leader) == count + remaining and leader[0] < first)
        for count, first in rivals
    )


def votes_needed(answers: Answers, equal: Equal = numbers.equal) -> int:
    """How many of the answers, in turn, decide the majority of all."""
    most = len(answers)
    return next(count for count in range(most + 1) if decided(answers[:count], most - count, equal))

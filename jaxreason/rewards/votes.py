"""Majority and weighted votes over clusters of equal answers. Pure Python."""

import math
from collections.abc import Callable, Sequence

from jaxreason.errors import InputError
from jaxreason.rewards import numbers

Equal = Callable[[str, str], bool]
Answers = Sequence[str | None]
"""Final answers in sampling order; None where none could be parsed."""


def cluster_answers(answers: Answers, equal: Equal = numbers.equal) -> list[list[int]]:
    """Indices of equal answers, by cluster, in order of first occurrence; None belongs to no cluster.

    An answer joins the first cluster whose first member it equals.
    """
    clusters: list[tuple[str, list[int]]] = []
    for index, answer in enumerate(answers):
        if answer is not None:
            members = next((members for first, members in clusters if equal(first, answer)), None)
            if members is None:
                clusters.append((answer, members := []))
            members.append(index)
    return [members for _, members in clusters]


def majority_vote(answers: Answers, equal: Equal = numbers.equal) -> int | None:
    """Index of the first answer of the largest cluster, of the earliest of equal ones; None without answers.

    Self-consistency (Wang et al., arXiv 2203.11171).
    """
    return weighted_vote(answers, [1.0] * len(answers), equal)


def weighted_vote(answers: Answers, weights: Sequence[float], equal: Equal = numbers.equal) -> int | None:
    """As `majority_vote`, by the sum of weights of a cluster; an answer with a non-finite weight does not vote.

    Weights are at least 0: with negative ones, as log-probabilities, the rarest answer would lose least and win.
    """
    if len(weights) != len(answers):
        raise InputError(f"{len(answers)} answers have {len(weights)} weights: give one weight per answer")
    if negative := [weight for weight in weights if -math.inf < weight < 0]:
        raise InputError(f"a vote of weight {negative[0]:g} elects what is rare: give at least 0, as exp(score)")
    voting = [answer if math.isfinite(w) else None for answer, w in zip(answers, weights, strict=True)]
    totals = {cluster[0]: sum(weights[i] for i in cluster) for cluster in cluster_answers(voting, equal)}
    return max(totals, key=totals.__getitem__, default=None)


def borda_weights(scores: Sequence[float], power: float = 0.5) -> list[float]:
    """(N - rank + 1)^power for each of N scores; rank 1 is the highest, ties rank in order; NaN for non-finite scores.

    Weights a vote by rank of confidence (Kang et al., arXiv 2502.18581). power = 0 is the majority vote; a large power
    lets the best score decide alone.
    """
    finite = [index for index, score in enumerate(scores) if math.isfinite(score)]
    best_first = sorted(finite, key=lambda index: -scores[index])
    weights = [math.nan] * len(scores)
    for rank, index in enumerate(best_first, 1):
        weights[index] = (len(finite) - rank + 1) ** power
    return weights


def is_decided(answers: Answers, remaining: int, equal: Equal = numbers.equal) -> bool:
    """True if `remaining` further answers cannot change the majority."""
    clusters = cluster_answers(answers, equal)
    if not clusters:
        return remaining == 0
    leader = max(clusters, key=len)
    rivals = [(len(cluster), cluster[0]) for cluster in clusters if cluster is not leader] + [(0, len(answers))]
    return all(
        len(leader) > count + remaining or (len(leader) == count + remaining and leader[0] < first)
        for count, first in rivals
    )


def votes_needed(answers: Answers, equal: Equal = numbers.equal) -> int:
    """The smallest number of leading answers that decides the majority of all."""
    total = len(answers)
    return next(count for count in range(total + 1) if is_decided(answers[:count], total - count, equal))

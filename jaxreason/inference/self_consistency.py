"""Many answers to a problem, of which the most frequent one counts; fewer where a few already decide."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Array, Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Answered, Cost, Group, Reasoner
from jaxreason.inference.scorers import Scorer, scored
from jaxreason.rewards import numbers
from jaxreason.rewards.votes import Equal, borda_weights, clusters, decided, majority_vote, weighted_vote
from jaxreason.sampling import row_keys
from jaxreason.tasks import Problem


def self_consistency(group: Group, equal: Equal = numbers.equal) -> Answered:
    """The majority's first answer (Wang et al., arXiv 2203.11171)."""
    return _said(group, majority_vote(group.answers, equal), group.cost)


def weighted_consistency(group: Group, scorer: Scorer, *, power: float | None = None) -> Answered:
    """Each answer votes with its score, or, with a `power`, with its rank by the score (`borda_weights`)."""
    scores, cost, dropped = scored(group, scorer)
    weights = scores if power is None else borda_weights(scores, power)
    return _said(group, weighted_vote(group.answers, weights), group.cost + cost, dropped)


def until_decided(
    reasoner: Reasoner,
    problems: Sequence[Problem],
    count: int,
    key: Key[Array, ""],
    *,
    at_once: int = 4,
    equal: Equal = numbers.equal,
) -> list[Group]:
    """Up to `count` answers to each problem, `at_once` at a time, until the rest cannot change the majority.

    They are the first ones of `reasoner.answer(problems, count, key)`, and have the same majority. A prompt is read
    anew each time.
    """
    if not 1 <= at_once <= count:
        raise InputError(f"{at_once} answers at once of {count}: give from 1 to {count}")
    keys = row_keys(key, np.array([problem.index for problem in problems]), count)
    groups = [Group(problem, [], Cost()) for problem in problems]
    open_ones = np.arange(len(problems))
    for start in range(0, count, at_once):
        some = keys[open_ones, start : start + at_once]
        for place, new in zip(open_ones, reasoner.answer_with([problems[i] for i in open_ones], some), strict=True):
            old = groups[place]
            groups[place] = Group(old.problem, old.samples + new.samples, old.reading + new.reading)
        left = count - start - at_once
        open_ones = np.array([i for i in open_ones if not decided(groups[i].answers, left, equal)], int)
        if not open_ones.size:
            break
    return groups


def adaptive(
    problems: Sequence[Problem],
    cheap: Callable[[Sequence[Problem]], list[Group]],
    dear: Callable[[Sequence[Problem]], list[Group]],
    *,
    agreement: float = 1.0,
    equal: Equal = numbers.equal,
) -> list[Answered]:
    """Thinks long only where it seems needed: `dear` answers where less than a share `agreement` of the `cheap` answers
    is the same; then all vote."""
    groups = list(cheap(problems))
    unsure = [i for i, group in enumerate(groups) if _agreement(group, equal) < agreement]
    if unsure:
        for i, more in zip(unsure, dear([problems[i] for i in unsure]), strict=True):
            groups[i] = groups[i]._replace(
                samples=groups[i].samples + more.samples, reading=groups[i].reading + more.reading
            )
    return [self_consistency(group, equal) for group in groups]


def _agreement(group: Group, equal: Equal) -> float:
    """Share of the samples that give the most frequent answer."""
    return max(map(len, clusters(group.answers, equal)), default=0) / len(group.samples)


def _said(group: Group, place: int | None, cost: Cost, dropped: int = 0) -> Answered:
    return Answered(None if place is None else group.samples[place].text, cost, dropped)

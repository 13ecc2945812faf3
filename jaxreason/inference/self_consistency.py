"""Many answers to a problem, of which the most frequent one counts; fewer where a few already decide."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Array, Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Cost, Group, InferenceModel, MethodResult
from jaxreason.inference.scorers import Scorer, scored
from jaxreason.rewards import numbers
from jaxreason.rewards.votes import Equal, borda_weights, cluster_answers, is_decided, majority_vote, weighted_vote
from jaxreason.sampling import completion_keys
from jaxreason.tasks import Problem


def self_consistency(group: Group, equal: Equal = numbers.equal) -> MethodResult:
    """The majority's first answer (Wang et al., arXiv 2203.11171)."""
    return _said(group, majority_vote(group.answers, equal), group.cost)


def weighted_consistency(group: Group, scorer: Scorer, *, power: float | None = None) -> MethodResult:
    """Each answer votes with its score, or, with a `power`, with its rank by the score (`borda_weights`)."""
    scores, cost, dropped = scored(group, scorer)
    weights = scores if power is None else borda_weights(scores, power)
    return _said(group, weighted_vote(group.answers, weights), group.cost + cost, dropped)


def early_stopping_vote(
    reasoner: InferenceModel,
    problems: Sequence[Problem],
    count: int,
    key: Key[Array, ""],
    *,
    microbatch_size_: int = 4,
    equal: Equal = numbers.equal,
) -> list[Group]:
    """Up to `count` answers to each problem, `microbatch_size_` at a time, until the rest cannot change the majority.

    They are the first ones of `reasoner.answer(problems, count, key)`, and have the same majority. A prompt is read
    anew each time.
    """
    if not 1 <= microbatch_size_ <= count:
        raise InputError(f"{microbatch_size_} answers at once of {count}: give from 1 to {count}")
    keys = completion_keys(key, np.array([problem.index for problem in problems]), count)
    groups = [Group(problem, [], Cost()) for problem in problems]
    open_ones = np.arange(len(problems))
    for start in range(0, count, microbatch_size_):
        some = keys[open_ones, start : start + microbatch_size_]
        for place, new in zip(open_ones, reasoner.answer_with([problems[i] for i in open_ones], some), strict=True):
            old = groups[place]
            groups[place] = Group(old.problem, old.samples + new.samples, old.reading + new.reading)
        left = count - start - microbatch_size_
        open_ones = np.array([i for i in open_ones if not is_decided(groups[i].answers, left, equal)], int)
        if not open_ones.size:
            break
    return groups


def cascade(
    problems: Sequence[Problem],
    cheap: Callable[[Sequence[Problem]], list[Group]],
    expensive: Callable[[Sequence[Problem]], list[Group]],
    *,
    agreement: float = 1.0,
    equal: Equal = numbers.equal,
) -> list[MethodResult]:
    """Thinks long only where it seems needed: `expensive` answers where less than a share `agreement` of the `cheap` answers
    is the same; then all vote."""
    groups = list(cheap(problems))
    unsure = [i for i, group in enumerate(groups) if _agreement(group, equal) < agreement]
    if unsure:
        for i, more in zip(unsure, expensive([problems[i] for i in unsure]), strict=True):
            groups[i] = groups[i]._replace(
                samples=groups[i].samples + more.samples, reading=groups[i].reading + more.reading
            )
    return [self_consistency(group, equal) for group in groups]


def _agreement(group: Group, equal: Equal) -> float:
    """Share of the samples that give the most frequent answer."""
    return max(map(len, cluster_answers(group.answers, equal)), default=0) / len(group.samples)


def _said(group: Group, place: int | None, cost: Cost, dropped: int = 0) -> MethodResult:
    return MethodResult(None if place is None else group.samples[place].text, cost, dropped)

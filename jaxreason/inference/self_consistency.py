"""Votes: the most frequent of many answers, with fewer samples where a few already decide."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Cost, Group, InferenceModel, MethodResult, problem_keys
from jaxreason.inference.scorers import Scorer, score_group
from jaxreason.rewards import numbers
from jaxreason.rewards.votes import Equal, borda_weights, cluster_answers, is_decided, majority_vote, weighted_vote
from jaxreason.tasks import Problem


def self_consistency(group: Group, equal: Equal = numbers.equal) -> MethodResult:
    """The first sample with the majority's answer (Wang et al., arXiv 2203.11171)."""
    return _result(group, majority_vote(group.answers, equal), group.cost)


def weighted_consistency(group: Group, scorer: Scorer, *, power: float | None = None) -> MethodResult:
    """A vote weighted by the samples' scores or, with a `power`, by their ranks (`borda_weights`)."""
    scores, cost, dropped = score_group(group, scorer)
    weights = scores if power is None else borda_weights(scores, power)
    return _result(group, weighted_vote(group.answers, weights), group.cost + cost, dropped)


def early_stopping_vote(
    model: InferenceModel,
    problems: Sequence[Problem],
    num_samples: int,
    key: Key[jax.Array, ""],
    *,
    chunk_size: int = 4,
    equal: Equal = numbers.equal,
) -> list[Group]:
    """Up to `num_samples` samples for each problem, `chunk_size` at a time, until the rest cannot change the majority.

    They are the first ones of `model.sample(problems, num_samples, key)` and have the same majority. Each chunk
    prefills the prompt again.
    """
    if not 1 <= chunk_size <= num_samples:
        raise InputError(f"chunks of {chunk_size} samples out of {num_samples}: give from 1 to {num_samples}")
    keys = problem_keys(problems, key, num_samples)
    groups = [Group(problem, [], Cost()) for problem in problems]
    undecided = list(range(len(problems)))
    for start in range(0, num_samples, chunk_size):
        chunk_keys = keys[np.array(undecided, int), start : start + chunk_size]
        chunks = model.sample_with_keys([problems[i] for i in undecided], chunk_keys)
        for i, chunk in zip(undecided, chunks, strict=True):
            groups[i] = groups[i].merge(chunk)
        remaining = num_samples - start - chunk_size
        undecided = [i for i in undecided if not is_decided(groups[i].answers, remaining, equal)]
        if not undecided:
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
    """A majority vote over `cheap` samples, and over `expensive` ones too where less than a share `agreement` of the
    cheap ones give the same answer."""
    groups = list(cheap(problems))
    unsure = [i for i, group in enumerate(groups) if _agreement(group, equal) < agreement]
    if unsure:
        for i, group in zip(unsure, expensive([problems[i] for i in unsure]), strict=True):
            groups[i] = groups[i].merge(group)
    return [self_consistency(group, equal) for group in groups]


def _agreement(group: Group, equal: Equal) -> float:
    """Share of the samples that give the most frequent answer."""
    return max(map(len, cluster_answers(group.answers, equal)), default=0) / len(group.samples)


def _result(group: Group, chosen: int | None, cost: Cost, dropped: int = 0) -> MethodResult:
    return MethodResult(None if chosen is None else group.samples[chosen].text, cost, dropped)

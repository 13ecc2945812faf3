"""Best of N: the sample that a scorer ranks highest."""

import math

from jaxreason.inference.model import Group, MethodResult
from jaxreason.inference.scorers import Scorer, score_group


def best_of_n(group: Group, scorer: Scorer) -> MethodResult:
    """The sample with the highest score, the first of equal ones; None if no sample has a score."""
    scores, cost, dropped = score_group(group, scorer)
    finite = [i for i, score in enumerate(scores) if not math.isnan(score)]
    best = max(finite, key=scores.__getitem__, default=None)
    return MethodResult(None if best is None else group.samples[best].text, group.cost + cost, dropped)

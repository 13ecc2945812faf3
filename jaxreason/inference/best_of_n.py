"""Of several answers, the one that a scorer likes best."""

import math

from jaxreason.inference.model import Group, MethodResult
from jaxreason.inference.scorers import Scorer, scored


def best_of_n(group: Group, scorer: Scorer) -> MethodResult:
    """The sample with the highest score, the first of equal ones; None if none has a score."""
    scores, cost, dropped = scored(group, scorer)
    kept = [place for place, score in enumerate(scores) if not math.isnan(score)]
    best = max(kept, key=scores.__getitem__, default=None)
    return MethodResult(None if best is None else group.samples[best].text, group.cost + cost, dropped)

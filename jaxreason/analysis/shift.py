"""Change of reasoning patterns between two models or two training steps: how often each is used, how often it succeeds.

NumPy, float64.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from jaxreason.analysis.labels import Labeller
from jaxreason.errors import InputError
from jaxreason.evaluation.metrics import pass_at_k
from jaxreason.evaluation.statistics import bootstrap_intervals, share_interval


class Labelled(NamedTuple):
    """Completions with their pattern labels."""

    problems: Int[np.ndarray, "N"]
    """Index of the problem of each completion."""
    labels: Shaped[np.ndarray, "N"]
    """Strings."""
    right: Bool[np.ndarray, "N"]
    """True for correct completions."""


def label_samples(samples: Sequence[Mapping[str, Any]], labeller: Labeller, *, grade: str = "lenient") -> Labelled:
    """Labels the rows of an evaluation or of a training step (`Evaluation.samples`, ...)."""
    if not samples:
        raise InputError("there are no samples; give at least one completion")
    return Labelled(
        np.array([sample["index"] for sample in samples]),
        np.array([labeller(sample["completion"]) for sample in samples]),
        np.array([bool(sample[grade]) for sample in samples]),
    )


class Pattern(NamedTuple):
    """Statistics of a pattern, with 95 % intervals on problems like these."""

    count: int
    share: float
    share_interval: tuple[float, float]
    success: float
    """Share of its completions that are correct; NaN without completions."""
    success_interval: tuple[float, float]


def pattern_stats(sample: Labelled, names: Sequence[str] = ()) -> dict[str, Pattern]:
    """Every pattern, the most frequent first; those of `names` also without completions."""
    every, patterns = list(dict.fromkeys([*np.unique(sample.labels).tolist(), *names])), {}
    counts = _counts(sample, np.sort(every), np.unique(sample.problems))
    for name, (drawn, right) in zip(np.sort(every).tolist(), np.moveaxis(counts, -1, 0), strict=True):
        count, share = int(drawn.sum()), share_interval(drawn, counts[0].sum(axis=1))
        success = share_interval(right, drawn) if count else None
        of_right = (success.mean, (success.low, success.high)) if success else (np.nan, (0.0, 1.0))
        patterns[name] = Pattern(count, share.mean, (share.low, share.high), *of_right)
    return dict(sorted(patterns.items(), key=lambda item: -item[1].count))


class PatternMonitor:
    """`monitor(samples)` returns metrics of a step's samples: `pattern_NAME_share` and `pattern_NAME_success`.

    Patterns seen in earlier steps stay in the metrics; without completions they have no success.
    """

    def __init__(self, labeller: Labeller, *, grade: str = "lenient"):
        self.labeller, self.grade = labeller, grade
        self.names: dict[str, None] = {}

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        patterns = pattern_stats(label_samples(samples, self.labeller, grade=self.grade), list(self.names))
        self.names |= dict.fromkeys(patterns)
        metrics = {}
        for name, pattern in patterns.items():
            prefix = "pattern_" + name.replace(" ", "_")
            metrics[f"{prefix}_share"] = pattern.share
            if pattern.count:
                metrics[f"{prefix}_success"] = pattern.success
        return metrics


class Decomposition(NamedTuple):
    """ΔACC = selection + execution + interaction (exact), each with a 95 % interval."""

    total: float
    selection: float
    """Σ Δπ p: change of pattern shares, at the success rates before."""
    execution: float
    """Σ π Δp: change of success rates, at the shares before."""
    interaction: float
    """Σ Δπ Δp."""
    intervals: dict[str, tuple[float, float]]
    """By the name of the term; a bootstrap over problems."""


def decompose(before: Labelled, after: Labelled, *, draws: int = 1000, seed: int = 0) -> Decomposition:
    """Decomposes the change of accuracy into change of pattern shares π and change of success rates p.

    A pattern that occurs on one side only is given the same success rate on the other: its effect is selection. The
    bootstrap draws problems, the same ones for both sides.
    """
    names, problems = (np.unique(np.concatenate(x)) for x in zip(before[1::-1], after[1::-1], strict=True))
    first, second = (_counts(side, names, problems) for side in (before, after))
    exact = _terms(first.sum(axis=1), second.sum(axis=1))

    def terms(drawn: Int[np.ndarray, "B P"]) -> tuple[Any, ...]:
        return _terms(*(np.einsum("bp,kpl->bkl", drawn, side) for side in (first, second)))

    intervals = bootstrap_intervals(terms, len(problems), draws=draws, seed=seed)
    total, selection, execution, interaction = map(float, exact)
    named = dict(zip(Decomposition._fields, intervals, strict=False))
    return Decomposition(total, selection, execution, interaction, named)


def _counts(side: Labelled, names: np.ndarray, problems: np.ndarray) -> Float[np.ndarray, "2 P L"]:
    """Number of completions by problem and pattern, and number of correct ones."""
    counts = np.zeros((2, len(problems), len(names)))
    cells = np.searchsorted(problems, side.problems), np.searchsorted(names, side.labels)
    np.add.at(counts[0], cells, 1)
    np.add.at(counts[1], cells, side.right)
    return counts


def _terms(first: Float[np.ndarray, "*draws 2 L"], second: Float[np.ndarray, "*draws 2 L"]) -> tuple[Any, ...]:
    """Total, selection, execution and interaction from the counts of `_counts`, summed over problems."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares, success = zip(
            *((n / n.sum(axis=-1, keepdims=True), r / n) for n, r in (np.moveaxis(x, -2, 0) for x in (first, second))),
            strict=True,
        )
    p = np.where(np.isnan(success[0]), success[1], success[0])
    q = np.where(np.isnan(success[1]), success[0], success[1])
    p, q = (np.nan_to_num(x) for x in (p, q))
    share_change, success_change = shares[1] - shares[0], q - p
    total = (shares[1] * q).sum(axis=-1) - (shares[0] * p).sum(axis=-1)
    selection, execution = (share_change * p).sum(axis=-1), (shares[0] * success_change).sum(axis=-1)
    return total, selection, execution, (share_change * success_change).sum(axis=-1)


def path_coverage(base_ranks: Int[np.ndarray, "P G T"], mask: Bool[np.ndarray, "P G T"]) -> float:
    """Share of the tuned model's tokens that are the base model's most probable ones (RAST, arXiv 2506.15710).

    Ranks: `jaxreason.models.token_ranks`.
    """
    return float((np.asarray(base_ranks) == 0)[np.asarray(mask)].mean())


def rank_change_ratio(
    base_ranks: Int[np.ndarray, "P G T"], tuned_ranks: Int[np.ndarray, "P G T"], mask: Bool[np.ndarray, "P G T"]
) -> float:
    """Share of tokens whose rank by probability differs between the two models (arXiv 2506.04695v2)."""
    return float((np.asarray(base_ranks) != np.asarray(tuned_ranks))[np.asarray(mask)].mean())


def pass_curve(right: Num[np.ndarray, "P N"] | Bool[np.ndarray, "P N"]) -> dict[int, Float[np.ndarray, "P"]]:
    """Each problem's pass@k, for k = 1, 2, 4, ... up to N samples."""
    samples = right.shape[1]
    counts = right.sum(axis=1)
    return {k: pass_at_k(samples, counts, k) for k in (2**i for i in range(samples.bit_length()))}


def crossover(base: Mapping[int, Float[np.ndarray, "P"]], tuned: Mapping[int, Float[np.ndarray, "P"]]) -> int | None:
    """The smallest k from which on the base model's pass@k is at least the tuned model's, if that led at a smaller k;
    else None (Yue et al., arXiv 2504.13837)."""
    led, lead = False, {k: float(tuned[k].mean() - base[k].mean()) for k in sorted(base)}
    for k in lead:
        led |= lead[k] > 0
        if led and all(lead[j] <= 0 for j in lead if j >= k):
            return k
    return None

"""What changed between two models, or two moments of training: which patterns are chosen, and how well each is carried
out. NumPy, float64."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxreason.analysis.labels import Labeller
from jaxreason.errors import InputError
from jaxreason.evaluation.metrics import mean_with_se, pass_at_k, wilson_interval

Interval = tuple[float, float]


class Labelled(NamedTuple):
    """Completions that were sorted by pattern, one an entry."""

    problems: Int[np.ndarray, "N"]
    """Number of the problem each one answers."""
    labels: np.ndarray
    """Of text, [N]."""
    right: Bool[np.ndarray, "N"]


def labelled(samples: Sequence[Mapping[str, Any]], labeller: Labeller, *, grade: str = "lenient") -> Labelled:
    """Of the rows of an evaluation or of a step (`Evaluation.samples`, `StepResult.samples`)."""
    if not samples:
        raise InputError("there are no samples: give at least one completion")
    return Labelled(
        np.array([sample["index"] for sample in samples]),
        np.array([labeller(sample["completion"]) for sample in samples]),
        np.array([bool(sample[grade]) for sample in samples]),
    )


class Pattern(NamedTuple):
    """A pattern in a set of completions; intervals are Wilson's, 95 %, and take completions to be independent."""

    count: int
    share: float
    share_interval: Interval
    success: float
    """Of the completions that have it, how many are right; NaN where none has."""
    success_interval: Interval


def patterns_of(sample: Labelled, names: Sequence[str] = ()) -> dict[str, Pattern]:
    """Every pattern, the most frequent first; those of `names` also where none has them."""
    total, found = len(sample.right), {}
    for name in (*np.unique(sample.labels).tolist(), *names):
        of = sample.right[sample.labels == name]
        count, right = len(of), int(of.sum())
        success = (right / count, wilson_interval(right, count)) if count else (np.nan, (0.0, 1.0))
        found[name] = Pattern(count, count / total, wilson_interval(count, total), *success)
    return dict(sorted(found.items(), key=lambda item: -item[1].count))


class PatternMonitor:
    """`monitor(samples)` says of a step's samples what share each pattern has and how often it succeeds, as metrics
    `pattern_NAME_share` and, where any has it, `pattern_NAME_success`. Names that were met stay."""

    def __init__(self, labeller: Labeller, *, grade: str = "lenient"):
        self.labeller, self.grade = labeller, grade
        self.names: dict[str, None] = {}

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        found = patterns_of(labelled(samples, self.labeller, grade=self.grade), list(self.names))
        self.names |= dict.fromkeys(found)
        metrics = {}
        for name, pattern in found.items():
            place = "pattern_" + name.replace(" ", "_")
            metrics[f"{place}_share"] = pattern.share
            if pattern.count:
                metrics[f"{place}_success"] = pattern.success
        return metrics


class Decomposition(NamedTuple):
    """ΔACC = selection + execution + interaction, exactly; each with its 95 % interval."""

    total: float
    selection: float
    """Σ Δπ p: other patterns are chosen, each as good as before."""
    execution: float
    """Σ π Δp: the same are chosen, carried out better or worse."""
    interaction: float
    """Σ Δπ Δp."""
    intervals: dict[str, Interval]
    """By the name of the term; from problems drawn with replacement."""


def decompose(before: Labelled, after: Labelled, *, draws: int = 1000, seed: int = 0) -> Decomposition:
    """Whether accuracy changed because other patterns were chosen, or because they were carried out better.

    π is a pattern's share, p its success before. A pattern that only one side has succeeds there as it would on the
    other: what it brings is selection. Problems of both sides are drawn together where they are the same.
    """
    names, problems = (np.unique(np.concatenate(x)) for x in zip(before[1::-1], after[1::-1], strict=True))
    first, second = (_counts(side, names, problems) for side in (before, after))
    exact = _terms(first.sum(axis=1), second.sum(axis=1))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(problems), np.full(len(problems), 1 / len(problems)), size=draws)
    spread = _terms(*(np.einsum("bp,kpl->bkl", drawn, side) for side in (first, second)))
    intervals = {
        name: (float(low), float(high))
        for name, low, high in zip(
            Decomposition._fields, *np.nanpercentile(np.stack(spread), [2.5, 97.5], axis=-1), strict=False
        )
    }
    return Decomposition(*map(float, exact), intervals)


def _counts(side: Labelled, names: np.ndarray, problems: np.ndarray) -> Float[np.ndarray, "2 P L"]:
    """How many completions of each problem have each pattern, and how many of these are right."""
    counts = np.zeros((2, len(problems), len(names)))
    place = np.searchsorted(problems, side.problems), np.searchsorted(names, side.labels)
    np.add.at(counts[0], place, 1)
    np.add.at(counts[1], place, side.right)
    return counts


def _terms(first: Float[np.ndarray, "*draws 2 L"], second: Float[np.ndarray, "*draws 2 L"]) -> tuple[Any, ...]:
    """Total, selection, execution and interaction of counts, right counts by pattern."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares, success = zip(
            *((n / n.sum(axis=-1, keepdims=True), r / n) for n, r in (np.moveaxis(x, -2, 0) for x in (first, second))),
            strict=True,
        )
    p = np.where(np.isnan(success[0]), success[1], success[0])
    q = np.where(np.isnan(success[1]), success[0], success[1])
    p, q = (np.nan_to_num(x) for x in (p, q))
    moved, better = shares[1] - shares[0], q - p
    total = (shares[1] * q).sum(axis=-1) - (shares[0] * p).sum(axis=-1)
    return total, (moved * p).sum(axis=-1), (shares[0] * better).sum(axis=-1), (moved * better).sum(axis=-1)


def path_coverage(base_ranks: Int[np.ndarray, "P G T"], mask: Bool[np.ndarray, "P G T"]) -> float:
    """The share of a tuned model's tokens that the base would have chosen, too, its most probable ones (RAST, arXiv
    2506.15710). Ranks: `jaxreason.models.token_ranks`."""
    return float((np.asarray(base_ranks) == 0)[np.asarray(mask)].mean())


def rank_change_ratio(
    base_ranks: Int[np.ndarray, "P G T"], tuned_ranks: Int[np.ndarray, "P G T"], mask: Bool[np.ndarray, "P G T"]
) -> float:
    """The share of tokens whose place in the order of probability differs between two models (arXiv 2506.04695v2)."""
    return float((np.asarray(base_ranks) != np.asarray(tuned_ranks))[np.asarray(mask)].mean())


def pass_curve(right: Num[np.ndarray, "P N"] | Bool[np.ndarray, "P N"]) -> dict[int, tuple[float, float]]:
    """pass@k and its standard error over problems for k = 1, 2, 4, ... up to the N samples of each."""
    samples = right.shape[1]
    counts = right.sum(axis=1)
    curve = {}
    for k in (2**i for i in range(samples.bit_length())):
        curve[k] = mean_with_se(pass_at_k(samples, counts, k)[:, None])
    return curve


def crossover(base: Mapping[int, tuple[float, float]], tuned: Mapping[int, tuple[float, float]]) -> int | None:
    """The smallest k from which on the base solves as many problems as the tuned model, which led before; None if there
    is none (Yue et al., arXiv 2504.13837)."""
    led = False
    for k in sorted(base):
        led |= tuned[k][0] > base[k][0]
        if led and all(base[j][0] >= tuned[j][0] for j in base if j >= k):
            return k
    return None

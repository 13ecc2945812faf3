"""Selects training data among sampled completions: rows of `Evaluation.samples`, graded by the verifier."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

Sample = dict[str, Any]


def filter_correct(samples: Iterable[Sample], *, max_per_problem: int) -> list[Sample]:
    """Correct, finished completions: distinct up to whitespace, at most `max_per_problem` of a problem."""
    return _distinct([s for s in samples if s["strict"] and not s["truncated"]], max_per_problem)


def deduplicate(samples: Iterable[Sample], *, max_per_problem: int) -> list[Sample]:
    """Finished, non-empty completions, correct or not: distinct up to whitespace, at most `max_per_problem`."""
    return _distinct([s for s in samples if _normalized(s) and not s["truncated"]], max_per_problem)


def _distinct(samples: Iterable[Sample], max_per_problem: int) -> list[Sample]:
    by_problem: dict[int, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        by_problem[sample["index"]].setdefault(_normalized(sample), sample)
    return [sample for texts in by_problem.values() for sample in islice(texts.values(), max_per_problem)]


def _normalized(sample: Sample) -> str:
    """The completion with runs of whitespace replaced by one space."""
    return " ".join(sample["completion"].split())


def source(sample: Sample) -> str:
    """Model and correctness: `tiny right`."""
    return f"{sample['model']} {'right' if sample['strict'] else 'wrong'}"


def make_pairs(
    samples: Sequence[Sample], pair_types: Sequence[tuple[str, str]], *, max_per_problem: int
) -> list[tuple[Sample, Sample]]:
    """(chosen, rejected) pairs of different completions of one problem, for each pair of `source` in `pair_types`.

    At most `max_per_problem` pairs of each type, no completion twice in a type. Truncated and empty ones are left out.
    """
    by_source: dict[tuple[int, str], dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        if _normalized(sample) and not sample["truncated"]:
            by_source[sample["index"], source(sample)].setdefault(_normalized(sample), sample)
    pairs: list[tuple[Sample, Sample]] = []
    for index in dict.fromkeys(sample["index"] for sample in samples):
        for chosen, rejected in pair_types:
            sides = zip(by_source[index, chosen].values(), by_source[index, rejected].values(), strict=False)
            pairs += islice((pair for pair in sides if _normalized(pair[0]) != _normalized(pair[1])), max_per_problem)
    return pairs

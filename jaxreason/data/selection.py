"""Which of a model's own texts are worth learning from: rows of `Evaluation.samples`, chosen by the verifier."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

Sample = dict[str, Any]


def filter_correct(samples: Iterable[Sample], *, max_per_problem: int) -> list[Sample]:
    """What is right and came to an end: each text once, up to blanks, and at most `max_per_problem` for a problem."""
    return _some([sample for sample in samples if sample["strict"] and not sample["truncated"]], max_per_problem)


def deduplicate(samples: Iterable[Sample], *, max_per_problem: int) -> list[Sample]:
    """The same of all that came to an end and are not empty, right or wrong."""
    return _some([sample for sample in samples if _text(sample) and not sample["truncated"]], max_per_problem)


def _some(samples: Iterable[Sample], max_per_problem: int) -> list[Sample]:
    by_problem: dict[int, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        by_problem[sample["index"]].setdefault(_text(sample), sample)
    return [sample for texts in by_problem.values() for sample in islice(texts.values(), max_per_problem)]


def _text(sample: Sample) -> str:
    return " ".join(sample["completion"].split())


def source(sample: Sample) -> str:
    """Who wrote it and whether it is right: `tiny right`."""
    return f"{sample['model']} {'right' if sample['strict'] else 'wrong'}"


def make_pairs(
    samples: Sequence[Sample], kinds: Iterable[tuple[str, str]], *, max_per_problem: int
) -> list[tuple[Sample, Sample]]:
    """Pairs of different texts of one problem, for each (chosen, rejected) among the `kinds` of `source`; every kind at
    most `most` times a problem, and no text twice in it. Texts that were cut off are left out, and empty ones."""
    kinds, by_source = list(kinds), defaultdict(dict)
    for sample in samples:
        if _text(sample) and not sample["truncated"]:
            by_source[sample["index"], source(sample)].setdefault(_text(sample), sample)
    pairs = []
    for index in dict.fromkeys(sample["index"] for sample in samples):
        for kind in kinds:
            sides = zip(*(by_source[index, side].values() for side in kind), strict=False)
            pairs += islice((pair for pair in sides if _text(pair[0]) != _text(pair[1])), max_per_problem)
    return pairs

"""Search over steps: several ways to go on, of which a scorer keeps the best (Snell et al., arXiv 2408.03314).

A step is a line, or `step_tokens` tokens. Width 1 chooses each step among `expand`; a larger width keeps several
partial solutions, a beam. Each step reads anew what stands before it, and its cost says so.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Cost, Group, InferenceModel, MethodResult, Sample
from jaxreason.inference.scorers import Scorer, scored
from jaxreason.sampling import completion_keys
from jaxreason.tasks import Problem
from jaxreason.text import Tokenizer, token_strings


class Beam(NamedTuple):
    """The partial solutions of one problem, the best first."""

    problem: Problem
    kept: list[Sample]
    cost: Cost
    dropped: int


def step_search(
    reasoner: InferenceModel,
    problems: Sequence[Problem],
    key: Key[Array, ""],
    *,
    scorer: Scorer,
    width: int = 1,
    expand: int = 4,
    step_tokens: int = 0,
) -> list[MethodResult]:
    """Goes on with each of `width` partial solutions in `expand` ways, keeps the `width` best of all, and so on until
    these have ended; the best one is the answer. The scorer sees solutions that have only begun."""
    if min(width, expand) < 1 or step_tokens < 0:
        raise InputError(f"width {width}, expand {expand}, step_tokens {step_tokens}: give at least 1, 1 and 0")
    prompts = [reasoner.prompt(reasoner.problem_to_messages(problem)) for problem in problems]
    ends = reasoner.tokenizer.stop_ids + (() if step_tokens else line_ends(reasoner.tokenizer))
    nothing = np.zeros(0, np.float32)
    beams = [
        Beam(problem, [Sample(prompt, [], "", nothing, True, Cost())], Cost(), 0)
        for problem, prompt in zip(problems, prompts, strict=True)
    ]
    for step in range(reasoner.max_tokens):
        going = [(i, sample) for i, beam in enumerate(beams) for sample in beam.kept if _open(reasoner, sample)]
        if not going:
            break
        places = [problems[i].index * width + beams[i].kept.index(sample) for i, sample in going]
        keys = completion_keys(jax.random.fold_in(key, step), np.array(places), expand)
        room = [reasoner.max_tokens - len(sample.tokens) for _, sample in going]
        most = [min(step_tokens or reasoner.max_tokens, left) for left in room]
        extended = [reasoner.extended(sample.prompt, sample.tokens) for _, sample in going]
        found = reasoner.complete(extended, keys, most=most, stop_ids=ends)
        pool: dict[int, list[Sample]] = {i: [s for s in beams[i].kept if not _open(reasoner, s)] for i, _ in going}
        spent: dict[int, Cost] = dict.fromkeys(pool, Cost())
        for (i, sample), ways in zip(going, found, strict=True):
            pool[i] += [_joined(reasoner, sample, way) for way in ways]
            spent[i] = sum((way.cost for way in ways), spent[i] + reasoner.reading(ways[0].prompt))
        for i, ways in pool.items():
            beams[i] = _best(beams[i], ways, spent[i], scorer, width)
    return [MethodResult(beam.kept[0].text, beam.cost, beam.dropped) for beam in beams]


def line_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that end a line."""
    return tuple(index for index, text in enumerate(token_strings(tokenizer, tokenizer.vocab_size)) if "\n" in text)


def _open(reasoner: InferenceModel, sample: Sample) -> bool:
    """Whether the solution can go on."""
    ended = bool(sample.tokens) and sample.tokens[-1] in reasoner.tokenizer.stop_ids
    return not ended and len(sample.tokens) < reasoner.max_tokens


def _joined(reasoner: InferenceModel, begun: Sample, way: Sample) -> Sample:
    tokens = begun.tokens + way.tokens
    ended = tokens[-1] in reasoner.tokenizer.stop_ids
    text = reasoner.tokenizer.decode(tokens[:-1] if ended else tokens)
    logps = np.concatenate([begun.logps, way.logps])
    return Sample(begun.prompt, tokens, text, logps, not ended, begun.cost + way.cost)


def _best(beam: Beam, ways: list[Sample], spent: Cost, scorer: Scorer, width: int) -> Beam:
    """The `width` best of different solutions; one without a score comes last."""
    different = list({tuple(way.tokens): way for way in ways}.values())
    scores, cost, dropped = scored(Group(beam.problem, different, Cost()), scorer)
    order = sorted(range(len(different)), key=lambda i: -scores[i] if math.isfinite(scores[i]) else math.inf)
    kept = [different[i] for i in order[:width]]
    return Beam(beam.problem, kept, beam.cost + spent + cost, beam.dropped + dropped)

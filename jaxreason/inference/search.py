"""Beam search over steps: several continuations, of which a scorer selects the best (Snell et al., arXiv 2408.03314).

A step is a line, or `step_tokens` tokens. Beam width 1 selects one continuation at each step; a larger width keeps
several partial solutions. Each step prefills what precedes it again; costs include this.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Cost, Group, InferenceModel, MethodResult, Sample
from jaxreason.inference.scorers import Scorer, score_group
from jaxreason.sampling import completion_keys
from jaxreason.tasks import Problem
from jaxreason.text import Tokenizer, token_strings


class _Beam(NamedTuple):
    """The partial solutions of one problem, the best first."""

    problem: Problem
    solutions: list[Sample]
    cost: Cost = Cost()
    dropped: int = 0


def step_search(
    model: InferenceModel,
    problems: Sequence[Problem],
    key: Key[jax.Array, ""],
    *,
    scorer: Scorer,
    beam_width: int = 1,
    num_expansions: int = 4,
    step_tokens: int = 0,
) -> list[MethodResult]:
    """Samples `num_expansions` next steps of each of `beam_width` partial solutions, keeps the `beam_width` best, and
    repeats until these have ended; the best one is the answer. The scorer must accept partial solutions."""
    if min(beam_width, num_expansions) < 1 or step_tokens < 0:
        raise InputError(
            f"beam width {beam_width}, expansions {num_expansions}, step tokens {step_tokens}: give at least 1, 1, 0"
        )
    stop_ids = model.tokenizer.stop_ids + (() if step_tokens else line_ends(model.tokenizer))
    no_logps = np.zeros(0, np.float32)
    beams = [
        _Beam(problem, [Sample(prompt, [], "", no_logps, True, Cost())])
        for problem, prompt in zip(problems, model.encode_problems(problems), strict=True)
    ]
    for step in range(model.max_tokens):
        active = [
            (i, rank, solution)
            for i, beam in enumerate(beams)
            for rank, solution in enumerate(beam.solutions)
            if _can_continue(model, solution)
        ]
        if not active:
            break
        prompts = [model.extend(solution.prompt, solution.tokens) for _, _, solution in active]
        indices = np.array([problems[i].index * beam_width + rank for i, rank, _ in active])
        keys = completion_keys(jax.random.fold_in(key, step), indices, num_expansions)
        remaining = [model.max_tokens - len(solution.tokens) for _, _, solution in active]
        row_limits = [min(step_tokens or model.max_tokens, tokens) for tokens in remaining]
        expansions = model.complete(prompts, keys, row_limits=row_limits, stop_ids=stop_ids)

        candidates = {i: [s for s in beams[i].solutions if not _can_continue(model, s)] for i, _, _ in active}
        costs = dict.fromkeys(candidates, Cost())
        for (i, _, solution), steps in zip(active, expansions, strict=True):
            candidates[i] += [_append(model, solution, step) for step in steps]
            costs[i] = sum((step.cost for step in steps), costs[i] + model.prefill_cost(steps[0].prompt))
        for i in candidates:
            beams[i] = _select(beams[i], candidates[i], costs[i], scorer, beam_width)
    return [MethodResult(beam.solutions[0].text, beam.cost, beam.dropped) for beam in beams]


def line_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that contain a line break."""
    return tuple(index for index, text in enumerate(token_strings(tokenizer, tokenizer.vocab_size)) if "\n" in text)


def _can_continue(model: InferenceModel, solution: Sample) -> bool:
    ended = bool(solution.tokens) and solution.tokens[-1] in model.tokenizer.stop_ids
    return not ended and len(solution.tokens) < model.max_tokens


def _append(model: InferenceModel, solution: Sample, step: Sample) -> Sample:
    tokens = solution.tokens + step.tokens
    ended = tokens[-1] in model.tokenizer.stop_ids
    text = model.tokenizer.decode(tokens[:-1] if ended else tokens)
    logps = np.concatenate([solution.logps, step.logps])
    return Sample(solution.prompt, tokens, text, logps, not ended, solution.cost + step.cost)


def _select(beam: _Beam, candidates: list[Sample], step_cost: Cost, scorer: Scorer, width: int) -> _Beam:
    """Keeps the `width` best of distinct candidates; those without a score come last."""
    distinct = list({tuple(candidate.tokens): candidate for candidate in candidates}.values())
    scores, cost, dropped = score_group(Group(beam.problem, distinct, Cost()), scorer)
    order = sorted(range(len(distinct)), key=lambda i: -scores[i] if math.isfinite(scores[i]) else math.inf)
    solutions = [distinct[i] for i in order[:width]]
    return _Beam(beam.problem, solutions, beam.cost + step_cost + cost, beam.dropped + dropped)

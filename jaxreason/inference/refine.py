"""Self-refinement: the model criticises its answer and writes it again (Madaan et al., arXiv 2303.17651)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Cost, Group, InferenceModel, MethodResult
from jaxreason.inference.scorers import Scorer, scored
from jaxreason.sampling import completion_keys
from jaxreason.tasks import Problem

CRITIQUE = "Check this solution step by step. What is wrong with it, if anything?"
REVISE = "Now write the whole solution again without these mistakes, and end it in the same form."


def refine(
    reasoner: InferenceModel,
    problems: Sequence[Problem],
    key: Key[Array, ""],
    *,
    rounds: int = 1,
    scorer: Scorer | None = None,
) -> list[MethodResult]:
    """An answer, then `rounds` times a critique and a revision, which takes the answer's place if the `scorer` gives it
    a higher score (without a scorer: always)."""
    if rounds < 0:
        raise InputError(f"{rounds} rounds of refinement: give 0 or more")
    asked = [_messages(reasoner, problem) for problem in problems]
    answers_and_questions = 2 * reasoner.max_tokens + len(reasoner.tokenizer.encode(CRITIQUE + REVISE)) + 32
    reasoner.check(asked, answers_and_questions if rounds else 0)
    keys = completion_keys(key, np.array([problem.index for problem in problems]), 1 + 2 * rounds)
    said, costs, dropped = _answered(reasoner, asked, keys[:, :1]), [Cost()] * len(problems), [0] * len(problems)
    costs = [cost + more for cost, (_, more) in zip(costs, said, strict=True)]
    best = [sample for sample, _ in said]
    for turn in range(rounds):
        critique, revision = keys[:, 1 + 2 * turn : 2 + 2 * turn], keys[:, 2 + 2 * turn : 3 + 2 * turn]
        drafts = [[*x, _turn("assistant", s.text), _turn("user", CRITIQUE)] for x, s in zip(asked, best, strict=True)]
        critiques = _answered(reasoner, drafts, critique)
        again = [
            [*x, _turn("assistant", s.text), _turn("user", REVISE)] for x, (s, _) in zip(drafts, critiques, strict=True)
        ]
        revisions = _answered(reasoner, again, revision)
        for i, ((_, one), (new, two)) in enumerate(zip(critiques, revisions, strict=True)):
            costs[i] += one + two
            if scorer is None:
                best[i] = new
                continue
            (old_score, new_score), cost, missing = scored(Group(problems[i], [best[i], new], Cost()), scorer)
            costs[i], dropped[i] = costs[i] + cost, dropped[i] + missing
            if new_score > old_score or math.isnan(old_score):
                best[i] = new
    return [MethodResult(s.text, cost, lost) for s, cost, lost in zip(best, costs, dropped, strict=True)]


def _answered(reasoner: InferenceModel, asked: Sequence, keys: Key[Array, "P 1"]) -> list:
    """The answer to each conversation, and what it took."""
    prompts = [reasoner.prompt(messages) for messages in asked]
    parts = zip(prompts, reasoner.complete(prompts, keys), strict=True)
    return [(sample, reasoner.reading(prompt) + sample.cost) for prompt, (sample,) in parts]


def _messages(reasoner: InferenceModel, problem: Problem) -> list[dict[str, str]]:
    asked = reasoner.problem_to_messages(problem)
    return [_turn("user", asked)] if isinstance(asked, str) else list(asked)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}

"""Self-refinement: the model criticises its answer and revises it (Madaan et al., arXiv 2303.17651)."""

import math
from collections.abc import Sequence

import jax
from jaxtyping import Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Cost, Group, InferenceModel, MethodResult, Sample, problem_keys
from jaxreason.inference.scorers import Scorer, score_group
from jaxreason.tasks import Problem
from jaxreason.text import Messages

CRITIQUE = "Check this solution step by step. What is wrong with it, if anything?"
REVISE = "Now write the whole solution again without these mistakes, and end it in the same form."


def refine(
    model: InferenceModel,
    problems: Sequence[Problem],
    key: Key[jax.Array, ""],
    *,
    rounds: int = 1,
    scorer: Scorer | None = None,
) -> list[MethodResult]:
    """An answer, then `rounds` of critique and revision. A revision replaces the answer if the `scorer` gives it a
    higher score (without a scorer: always)."""
    if rounds < 0:
        raise InputError(f"{rounds} rounds of refinement: give 0 or more")
    questions = [_conversation(model, problem) for problem in problems]
    followup_tokens = 2 * model.max_tokens + len(model.tokenizer.encode(CRITIQUE + REVISE)) + 32
    model.check_messages(questions, followup_tokens if rounds else 0)
    keys = problem_keys(problems, key, 1 + 2 * rounds)
    best, costs = _complete(model, questions, keys[:, :1])
    dropped = [0] * len(problems)
    for i in range(1, 1 + 2 * rounds, 2):
        drafts = [_reply(*pair, CRITIQUE) for pair in zip(questions, best, strict=True)]
        critiques, critique_costs = _complete(model, drafts, keys[:, i : i + 1])
        reviews = [_reply(*pair, REVISE) for pair in zip(drafts, critiques, strict=True)]
        revisions, revision_costs = _complete(model, reviews, keys[:, i + 1 : i + 2])
        for p, revision in enumerate(revisions):
            costs[p] += critique_costs[p] + revision_costs[p]
            if scorer is None:
                best[p] = revision
                continue
            (old, new), cost, missing = score_group(Group(problems[p], [best[p], revision], Cost()), scorer)
            costs[p], dropped[p] = costs[p] + cost, dropped[p] + missing
            if new > old or math.isnan(old):
                best[p] = revision
    return [MethodResult(s.text, cost, missing) for s, cost, missing in zip(best, costs, dropped, strict=True)]


def _complete(
    model: InferenceModel, conversations: Sequence[Messages], keys: Key[jax.Array, "P 1"]
) -> tuple[list[Sample], list[Cost]]:
    """One completion of each conversation, and its cost with prefill."""
    prompts = [model.encode(messages) for messages in conversations]
    samples = [sample for (sample,) in model.complete(prompts, keys)]
    return samples, [model.prefill_cost(sample.prompt) + sample.cost for sample in samples]


def _conversation(model: InferenceModel, problem: Problem) -> Messages:
    messages = model.problem_to_messages(problem)
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _reply(conversation: Messages, sample: Sample, question: str) -> Messages:
    """The conversation with the model's answer and the user's next turn."""
    return [*conversation, {"role": "assistant", "content": sample.text}, {"role": "user", "content": question}]

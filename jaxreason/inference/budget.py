"""Budget forcing: a lower and an upper limit on the tokens of thinking (s1, arXiv 2501.19393).

A model that ends its thinking early continues after a forced "Wait"; one that reaches its budget is forced to answer.
With a budget of 0 it answers directly. Each continuation prefills prompt and completion again; costs include this.
Forced tokens count as prefill, not as sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import jax
import numpy as np
from jaxtyping import Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Cost, Group, InferenceModel, Prompt, Sample, problem_keys
from jaxreason.tasks import Problem
from jaxreason.text import Tokenizer


@dataclass(frozen=True)
class ThinkingFormat:
    """How thinking ends in a model's completions, and the text that forces it."""

    end: str
    """The token that ends thinking; empty if only the end of the completion does."""
    close: str
    """Forced text that ends thinking and starts the answer."""
    wait: str
    """Forced text that continues thinking."""


THINK_TAGS = ThinkingFormat("</think>", "\n</think>\n\n", "Wait")
HASH_MARKS = ThinkingFormat("####", "\n####", "Wait")  # at the beginning of a line
NO_MARKS = ThinkingFormat("", "\n#### ", "\nWait")


def detect_thinking_format(tokenizer: Tokenizer) -> ThinkingFormat:
    """By the vocabulary: `</think>`, GSM8K's `####` as a token, or neither."""
    formats = (one for one in (THINK_TAGS, HASH_MARKS) if tokenizer.backend.token_id(one.end) is not None)
    return next(formats, NO_MARKS)


@dataclass
class _Row:
    """One completion in progress."""

    prompt: Prompt
    tokens: list[int] = field(default_factory=list)
    """Sampled and forced ones."""
    logps: list[np.ndarray] = field(default_factory=list)
    cost: Cost = Cost()
    max_new_tokens: int = 0
    """To sample in this phase."""

    def ends_with(self, ids: tuple[int, ...]) -> bool:
        return bool(self.tokens) and self.tokens[-1] in ids


def force_budget(
    model: InferenceModel,
    problems: Sequence[Problem],
    num_samples: int,
    key: Key[jax.Array, ""],
    *,
    budget: int,
    waits: int = 0,
    answer_tokens: int = 16,
    thinking_format: ThinkingFormat | None = None,
) -> list[Group]:
    """`num_samples` completions for each problem with at most `budget` tokens of thinking, "Wait" included, and
    `answer_tokens` after it. Thinking that ends early is continued up to `waits` times."""
    if budget < 0 or waits < 0 or answer_tokens < 1 or num_samples < 1:
        raise InputError(
            f"budget {budget}, waits {waits}, answer tokens {answer_tokens}, samples {num_samples}: "
            "give at least 0, 0, 1, 1"
        )
    if budget + answer_tokens > model.max_tokens:
        raise InputError(
            f"a budget of {budget} and {answer_tokens} answer tokens are more than the {model.max_tokens} tokens "
            "of a completion: lower the budget or raise --max-tokens"
        )
    tokenizer = model.tokenizer
    style = thinking_format or detect_thinking_format(tokenizer)
    end_id = tokenizer.backend.token_id(style.end) if style.end else None
    thinking_ends = tokenizer.stop_ids + (() if end_id is None else (end_id,))
    wait, close = tokenizer.encode_continuation(style.wait), tokenizer.encode_continuation(style.close)

    prompts, keys = model.encode_problems(problems), problem_keys(problems, key, num_samples)
    rows = [_Row(prompt) for prompt in prompts for _ in range(num_samples)]
    for phase in range(waits + 2):  # think, `waits` times "Wait", answer
        answering = phase == waits + 1
        for row in rows:
            row.max_new_tokens = 0
            if phase == 0:
                row.max_new_tokens = budget
            elif not answering and row.ends_with(thinking_ends) and len(row.tokens) + len(wait) <= budget:
                row.tokens[-1:] = wait  # replaces the token that ended thinking, and its log-probability
                row.logps[-1] = row.logps[-1][:-1]
                row.max_new_tokens = budget - len(row.tokens)
            elif answering and not row.ends_with(tokenizer.stop_ids):
                row.tokens += [] if row.ends_with(thinking_ends) else close
                row.max_new_tokens = answer_tokens
        _complete_rows(model, rows, keys, phase, tokenizer.stop_ids if answering else thinking_ends)

    samples = [_finish(row, tokenizer) for row in rows]
    starts = range(0, len(rows), num_samples)
    return [
        Group(problem, samples[start : start + num_samples], model.prefill_cost(prompt))
        for problem, prompt, start in zip(problems, prompts, starts, strict=True)
    ]


def _complete_rows(
    model: InferenceModel, rows: list[_Row], keys: Key[jax.Array, "P G"], phase: int, stop_ids: tuple[int, ...]
) -> None:
    """Samples up to `max_new_tokens` of every row, with keys of their own in each phase."""
    active = np.array([i for i, row in enumerate(rows) if row.max_new_tokens], int)
    if not active.size:
        return
    row_keys, group_size = keys.reshape(-1)[active], keys.shape[1]
    if phase > 0:  # completions differ by now; in phase 0 those of a problem share the prefill of its prompt
        row_keys, group_size = jax.vmap(lambda key: jax.random.fold_in(key, phase))(row_keys), 1
    leaders = [rows[i] for i in active[::group_size]]
    prompts = [model.extend(row.prompt, row.tokens) for row in leaders]
    limits = [row.max_new_tokens for row in leaders]
    samples = model.complete(prompts, row_keys.reshape(-1, group_size), row_limits=limits, stop_ids=stop_ids)
    for i, sample in zip(active, chain.from_iterable(samples), strict=True):
        rows[i].tokens += sample.tokens
        rows[i].logps.append(sample.logps)
        rows[i].cost += (model.prefill_cost(sample.prompt) if phase else Cost()) + sample.cost


def _finish(row: _Row, tokenizer: Tokenizer) -> Sample:
    ended = row.ends_with(tokenizer.stop_ids)
    text = tokenizer.decode(row.tokens[:-1] if ended else row.tokens)
    logps = np.concatenate([np.zeros(0, np.float32), *row.logps])
    return Sample(row.prompt, row.tokens, text, logps, not ended, row.cost)

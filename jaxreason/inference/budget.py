"""Budget forcing: thinking that is not to end yet, and thinking that has to end now (s1, arXiv 2501.19393).

A model that wants to end its thinking is made to go on by the word "Wait"; one that has used up its budget is made to
answer. With a budget of 0 it answers at once. The forced words cost reading, not writing; what is continued is read
anew, and the costs say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Array, Key

from jaxreason.errors import InputError
from jaxreason.inference.model import Cost, Group, InferenceModel, Prompt, Sample
from jaxreason.sampling import completion_keys
from jaxreason.tasks import Problem
from jaxreason.text import Tokenizer


@dataclass(frozen=True)
class ThinkingFormat:
    """How a model's thinking ends, and the words that force it."""

    end: str
    """The token that ends it; empty if only the end of the completion does."""
    close: str
    """What ends it by force and begins the answer."""
    wait: str
    """What makes it go on."""


TAGGED = ThinkingFormat("</think>", "\n</think>\n\n", "Wait")
HASHES = ThinkingFormat("####", "\n####", "Wait")  # it stands at the beginning of a line
UNMARKED = ThinkingFormat("", "\n#### ", "\nWait")


def thinking_format(tokenizer: Tokenizer) -> ThinkingFormat:
    """By the vocabulary: `</think>`, the `####` of GSM8K's answers as a token, or no mark at all."""
    marks = (style for style in (TAGGED, HASHES) if tokenizer.backend.token_id(style.end) is not None)
    return next(marks, UNMARKED)


def force_budget(
    reasoner: InferenceModel,
    problems: Sequence[Problem],
    count: int,
    key: Key[Array, ""],
    *,
    budget: int,
    waits: int = 0,
    answer_tokens: int = 16,
    thinking: ThinkingFormat | None = None,
) -> list[Group]:
    """`count` answers to each problem after at most `budget` tokens of thinking, which goes on `waits` times."""
    if budget < 0 or waits < 0 or answer_tokens < 1 or count < 1:
        raise InputError(
            f"budget {budget}, waits {waits}, answer tokens {answer_tokens}, samples {count}: give at least 0, 0, 1, 1"
        )
    if budget + answer_tokens > reasoner.max_tokens:
        raise InputError(
            f"a budget of {budget} and {answer_tokens} for the answer are more than the {reasoner.max_tokens} tokens "
            "of a completion: lower the budget or raise --max-tokens"
        )
    style = thinking or thinking_format(reasoner.tokenizer)
    token = reasoner.tokenizer.backend.token_id(style.end) if style.end else None
    ends = reasoner.tokenizer.stop_ids + (() if token is None else (token,))
    wait, close = (reasoner.tokenizer.encode_continuation(text) for text in (style.wait, style.close))
    keys = completion_keys(key, np.array([problem.index for problem in problems]), count)
    prompts = [reasoner.prompt(reasoner.problem_to_messages(problem)) for problem in problems]
    groups = [Group(problem, [], reasoner.reading(prompt)) for problem, prompt in zip(problems, prompts, strict=True)]
    thoughts = reasoner.complete(prompts, keys, most=[budget] * len(prompts), stop_ids=ends) if budget else []
    texts = [_Text.begun(sample) for group in thoughts for sample in group]
    texts = texts or [_Text(prompt) for prompt in prompts for _ in range(count)]
    for turn in range(1, waits + 1):
        again = [text for text in texts if text.ended(ends) and len(text.tokens) + len(wait) <= budget]
        for text in again:
            text.tokens[-1:] = wait
        _go_on(reasoner, texts, again, keys, turn, [budget - len(text.tokens) for text in again], ends)
    open_ones = [text for text in texts if not text.ended(reasoner.tokenizer.stop_ids)]
    for text in open_ones:
        if not text.ended(ends):
            text.tokens += close
    _go_on(reasoner, texts, open_ones, keys, waits + 1, [answer_tokens] * len(open_ones), reasoner.tokenizer.stop_ids)
    for place, text in enumerate(texts):
        groups[place // count].samples.append(text.sample(reasoner.tokenizer))
    return groups


@dataclass(eq=False)
class _Text:
    """A completion on its way."""

    prompt: Prompt
    tokens: list[int] = field(default_factory=list)
    logps: list[np.ndarray] = field(default_factory=list)
    cost: Cost = Cost()

    @staticmethod
    def begun(sample: Sample) -> "_Text":
        return _Text(sample.prompt, list(sample.tokens), [sample.logps], sample.cost)

    def ended(self, ends: tuple[int, ...]) -> bool:
        return bool(self.tokens) and self.tokens[-1] in ends

    def sample(self, tokenizer: Tokenizer) -> Sample:
        ended = self.ended(tokenizer.stop_ids)
        text = tokenizer.decode(self.tokens[:-1] if ended else self.tokens)
        logps = np.concatenate([np.zeros(0, np.float32), *self.logps])
        return Sample(self.prompt, self.tokens, text, logps, not ended, self.cost)


def _go_on(
    reasoner: InferenceModel,
    texts: list[_Text],
    chosen: list[_Text],
    keys: Key[Array, "P G"],
    turn: int,
    most: list[int],
    ends: tuple[int, ...],
) -> None:
    """Goes on with the `chosen` of all the `decode_completions`, by keys of their own for each `turn`."""
    going = [(text, limit) for text, limit in zip(chosen, most, strict=True) if limit > 0]
    if not going:
        return
    places = np.array([texts.index(text) for text, _ in going])
    fresh = jax.vmap(lambda key: jax.random.fold_in(key, turn))(keys.reshape(-1)[places])[:, None]
    prompts = [reasoner.extended(text.prompt, text.tokens) for text, _ in going]
    found = reasoner.complete(prompts, fresh, most=[limit for _, limit in going], stop_ids=ends)
    for (text, _), prompt, (more,) in zip(going, prompts, found, strict=True):
        text.tokens += more.tokens
        text.logps.append(more.logps)
        text.cost += reasoner.reading(prompt) + more.cost

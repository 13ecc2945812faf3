"""JSONL training files: conversations, prompt-completion pairs, preference pairs, teacher samples.

Errors name the file and the line.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxreason.errors import InputError
from jaxreason.tasks.files import parse_jsonl, read_bytes
from jaxreason.text.chat import encode_answer, encode_conversation, encode_prompt
from jaxreason.text.documents import Document, prompt_completion
from jaxreason.text.tokenizer import Tokenizer


class PreferencePair(NamedTuple):
    """Token ids of a prompt and two completions, each with its stop token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    sources: tuple[str, str] = ("", "")
    """Model and correctness of (chosen, rejected), as in `tiny right`."""
    name: str = "a pair"


def load_sft_jsonl(path: str | Path, tokenizer: Tokenizer) -> list[Document]:
    """Lines with `messages` (loss on every assistant turn), or with `prompt` and `completion`, as in TRL.

    A prompt is plain text or messages; a completion is text or one assistant message.
    """
    documents = []
    for where, row in _rows(path):
        if "messages" in row:
            documents.append(encode_conversation(tokenizer, _messages(row["messages"], where), where))
        elif "prompt" in row and "completion" in row:
            prompt, completion = _prompt(row["prompt"], where), _text(row["completion"], "completion", where)
            answer = encode_answer(tokenizer, prompt, completion)
            documents.append(prompt_completion(encode_prompt(tokenizer, prompt), answer, where))
        else:
            raise InputError(f"{where} has neither 'messages' nor 'prompt' and 'completion'; write either")
    if not documents:
        raise InputError(f"{path} has no examples; write one JSON object per line")
    return documents


def load_preference_jsonl(path: str | Path, tokenizer: Tokenizer) -> list[PreferencePair]:
    """Lines with `prompt`, `chosen` and `rejected`; optional: `chosen_source` and `rejected_source`."""
    pairs = []
    for where, row in _rows(path):
        if missing := [field for field in ("prompt", "chosen", "rejected") if field not in row]:
            raise InputError(f"{where} lacks {missing[0]!r}; each line needs 'prompt', 'chosen' and 'rejected'")
        prompt = _prompt(row["prompt"], where)
        chosen, rejected = (_text(row[side], side, where) for side in ("chosen", "rejected"))
        if chosen == rejected:
            raise InputError(f"{where} has the same 'chosen' and 'rejected' text; make them differ")
        sources = str(row.get("chosen_source", "")), str(row.get("rejected_source", ""))
        ids = encode_answer(tokenizer, prompt, chosen), encode_answer(tokenizer, prompt, rejected)
        pairs.append(PreferencePair(encode_prompt(tokenizer, prompt), ids[0], ids[1], sources, where))
    if not pairs:
        raise InputError(f"{path} has no pairs; write one JSON object per line")
    return pairs


class TeacherSample(NamedTuple):
    """A teacher's completion of a question of the task."""

    question: str
    completion: str
    name: str
    tokens: list[int] | None = None
    """Token ids of the completion with its stop token, if `topk` is stored."""
    topk: tuple[Int[np.ndarray, "T C"], Float[np.ndarray, "T C"]] | None = None
    """The C most probable tokens at each position, and their log-probabilities at the file's temperature."""


def load_teacher_jsonl(path: str | Path, *, temperature: float = 1.0) -> list[TeacherSample]:
    """Lines with `question` and `completion`; optional: `tokens`, `top_ids`, `top_logps` and `temperature`.

    These are the teacher's most probable tokens, equally many at every position of the file.
    """
    samples, counts = [], set()
    for where, row in _rows(path):
        question, completion = (_text(row.get(field, ""), field, where) for field in ("question", "completion"))
        tokens, topk = None, None
        if "top_ids" in row:
            tokens, topk = row.get("tokens"), _topk(row, where)
            counts.add(topk[0].shape[1])
            if (stored := row.get("temperature")) != temperature:
                raise InputError(f"{where} was stored at temperature {stored}, not {temperature}: use {stored}")
        samples.append(TeacherSample(question, completion, where, tokens, topk))
    if not samples:
        raise InputError(f"{path} has no samples; write one JSON object per line")
    if len(counts) > 1 or (counts and any(sample.topk is None for sample in samples)):
        raise InputError(f"{path} has different numbers of stored tokens; store equally many on every line")
    return samples


def _topk(row: dict[str, Any], where: str) -> tuple[Int[np.ndarray, "T C"], Float[np.ndarray, "T C"]]:
    try:
        ids, logps = np.array(row["top_ids"], np.int32), np.array(row["top_logps"], np.float32)
        valid = ids.shape == logps.shape == (len(row["tokens"]), ids.shape[1]) and ids.size and ids.min() >= 0
        valid = valid and (np.exp(logps).sum(axis=1) <= 1.001).all()  # also False for NaN
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        valid = False
    if not valid:
        raise InputError(
            f"{where} has 'tokens', 'top_ids' and 'top_logps' that do not match; give equally many ids and "
            "log-probabilities for every token, of probabilities that sum to at most 1"
        )
    return ids, logps


def _rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, row in parse_jsonl(read_bytes(Path(path)), f"{path}", {}):
        yield f"{path} line {index + 1}", row


def _messages(value: Any, where: str) -> list[Any]:
    if not (isinstance(value, list) and value):
        raise InputError(f"{where} has messages {str(value)[:40]!r}; give a list of them")
    for message in value:
        if not (isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))):
            raise InputError(f"{where} has the message {str(message)[:40]!r}; give strings 'role' and 'content'")
    return value


def _prompt(value: Any, where: str) -> str | list[Any]:
    if isinstance(value, str) and value:
        return value
    if not value or isinstance(value, str):
        raise InputError(f"{where} has an empty prompt; fill it in or delete the line")
    return _messages(value, where)


def _text(value: Any, field: str, where: str) -> str:
    if isinstance(value, list):
        turns = _messages(value, where)
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise InputError(f"{where} has a {field} of {len(turns)} messages; give one assistant message")
        value = turns[0]["content"]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where} has the {field} {str(value)[:40]!r}; write a non-empty string")
    return value

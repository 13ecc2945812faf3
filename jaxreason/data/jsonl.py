"""What others wrote to learn from, as JSONL: conversations, prompts with completions, pairs. Refused by line number."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxreason.errors import InputError
from jaxreason.tasks.files import read, rows
from jaxreason.text.chat import encode_answer, encode_conversation, encode_prompt
from jaxreason.text.documents import Document, prompt_completion
from jaxreason.text.tokenizer import Tokenizer


class PreferencePair(NamedTuple):
    """Two completions of one prompt, the better one first, each with its end."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    sources: tuple[str, str] = ("", "")
    """Who wrote each, and whether it is right: `tiny right`."""
    name: str = "a pair"


def load_sft_jsonl(path: str | Path, tokenizer: Tokenizer) -> list[Document]:
    """Lines of `messages`, a conversation whose every assistant turn is learned, or of `prompt` and `completion`.

    A prompt is plain text or messages; a completion is text or one message of the assistant.
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
            raise InputError(f"{where} has neither 'messages' nor 'prompt' and 'completion'; write one of the two")
    if not documents:
        raise InputError(f"{path} has no line to learn from; write one JSON object a line")
    return documents


def load_preference_jsonl(path: str | Path, tokenizer: Tokenizer) -> list[PreferencePair]:
    """Lines of `prompt`, `chosen` and `rejected`, and perhaps `chosen_source` and `rejected_source`."""
    pairs = []
    for where, row in _rows(path):
        if missing := [field for field in ("prompt", "chosen", "rejected") if field not in row]:
            raise InputError(f"{where} lacks {missing[0]!r}; each line needs 'prompt', 'chosen' and 'rejected'")
        prompt = _prompt(row["prompt"], where)
        chosen, rejected = (_text(row[side], side, where) for side in ("chosen", "rejected"))
        if chosen == rejected:
            raise InputError(f"{where} has the same text as 'chosen' and 'rejected': there is nothing to prefer")
        sides = (encode_answer(tokenizer, prompt, side) for side in (chosen, rejected))
        sources = tuple(str(row.get(f"{side}_source", "")) for side in ("chosen", "rejected"))
        pairs.append(PreferencePair(encode_prompt(tokenizer, prompt), *sides, sources, where))
    if not pairs:
        raise InputError(f"{path} has no pair; write one JSON object a line")
    return pairs


class TeacherSample(NamedTuple):
    """What a teacher said to a task's question."""

    question: str
    completion: str
    name: str
    tokens: list[int] | None = None
    """The completion's ids, its end included, if `top` was stored."""
    topk: tuple[np.ndarray, np.ndarray] | None = None
    """[T C] most probable ids in the place of each token, and their log-probabilities at the file's temperature."""


def load_teacher_jsonl(path: str | Path, *, temperature: float = 1.0) -> list[TeacherSample]:
    """Lines of `question` and `completion`; with `tokens`, `top_ids`, `top_logps` and `temperature` also the teacher's
    most probable tokens, equally many everywhere."""
    taught, counts = [], set()
    for where, row in _rows(path):
        question, completion = (_text(row.get(field, ""), field, where) for field in ("question", "completion"))
        tokens, top = None, None
        if "top_ids" in row:
            tokens, top = row.get("tokens"), _top(row, where)
            counts.add(top[0].shape[1])
            if row.get("temperature") != temperature:
                stored = row.get("temperature")
                raise InputError(f"{where} was stored at temperature {stored}, not {temperature}: give that one")
        taught.append(TeacherSample(question, completion, where, tokens, top))
    if not taught or len(counts) > 1 or (counts and any(row.topk is None for row in taught)):
        raise InputError(f"{path} has not the same number of stored tokens everywhere, or no line: write it anew")
    return taught


def _top(row: dict[str, Any], where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        ids, logps = np.array(row["top_ids"], np.int32), np.array(row["top_logps"], np.float32)
        good = ids.shape == logps.shape == (len(row["tokens"]), ids.shape[1]) and ids.size and ids.min() >= 0
        good = good and (np.exp(logps).sum(axis=1) <= 1.001).all()  # NaN is not
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        good = False
    if not good:
        raise InputError(
            f"{where}: 'tokens', 'top_ids' and 'top_logps' do not fit together; give for every token equally many ids "
            "and log-probabilities that add up to at most 1"
        )
    return ids, logps


def _rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, row in rows(read(Path(path)), f"{path}", {}):
        yield f"{path} line {index + 1}", row


def _messages(value: Any, where: str) -> list[Any]:
    if not (isinstance(value, list) and value):
        raise InputError(f"{where} has messages {str(value)[:40]!r}; give a list of them")
    for message in value:
        if not (isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))):
            raise InputError(f"{where} has the message {str(message)[:40]!r}; give the texts 'role' and 'content'")
    return value


def _prompt(value: Any, where: str) -> str | list[Any]:
    if isinstance(value, str) and value:
        return value
    if not value or isinstance(value, str):
        raise InputError(f"{where} has an empty prompt; write one or delete the line")
    return _messages(value, where)


def _text(value: Any, field: str, where: str) -> str:
    if isinstance(value, list):
        turns = _messages(value, where)
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise InputError(f"{where} has a {field} of {len(turns)} messages; give one, of the assistant")
        value = turns[0]["content"]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where} has the {field} {str(value)[:40]!r}; write a text that is not empty")
    return value

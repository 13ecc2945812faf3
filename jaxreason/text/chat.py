"""Messages to token ids, by the chat template published with the model.

A template is a program by whoever published the weights. It runs in jinja2's immutable sandbox: it can read the
messages and the special tokens, and cannot reach Python.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxreason.errors import InputError
from jaxreason.text.documents import Document, prompt_completion
from jaxreason.text.tokenizer import Tokenizer

Messages = Sequence[Any]
"""Dictionaries with strings "role" and "content"; checked by hand, so that the error names the wrong one."""


def encode_prompt(tokenizer: Tokenizer, messages_or_text: Messages | str) -> list[int]:
    """Token ids of a prompt: plain text, or messages rendered by the chat template.

    Plain text begins with BOS where the model expects it; a template writes its own. Without a template (a base model)
    the contents of the messages are joined by blank lines, ended by a newline and encoded as plain text.
    """
    ids = tokenizer.encode(prompt_text(tokenizer, messages_or_text))
    plain = isinstance(messages_or_text, str) or tokenizer.chat_template is None
    return [tokenizer.bos_id, *ids] if plain and tokenizer.add_bos and tokenizer.bos_id is not None else ids


def prompt_text(tokenizer: Tokenizer, messages_or_text: Messages | str) -> str:
    """The text that `encode_prompt` encodes."""
    if isinstance(messages_or_text, str):
        return messages_or_text
    if tokenizer.chat_template is None:
        return "\n\n".join(message["content"] for message in _checked(messages_or_text)) + "\n"
    return render(tokenizer, messages_or_text)


def render(tokenizer: Tokenizer, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
    """Renders `messages` by the chat template, as transformers' `apply_chat_template(tokenize=False)`.

    `add_generation_prompt`: end with the header of the assistant's turn; `variables` (`enable_thinking`, `tools`, ...)
    are passed to the template.
    """
    if tokenizer.chat_template is None:
        raise InputError("the tokenizer has no chat template; give plain text, or a chat model")
    given = {"messages": _checked(messages), "add_generation_prompt": add_generation_prompt}
    try:
        return _compiled(tokenizer.chat_template).render({**tokenizer.special, **given, **variables})
    except Exception as error:  # syntax, types, sandbox, raise_exception: a template may raise anything
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the chat template failed: {detail}; change the messages or the template") from error


def encode_answer(tokenizer: Tokenizer, prompt: Messages | str, completion: str) -> list[int]:
    """Ids of a completion as sampled after `encode_prompt(prompt)`, the stop token included."""
    if isinstance(prompt, str) or tokenizer.chat_template is None:
        return [*tokenizer.encode(completion), tokenizer.stop_ids[0]]
    _, ids, end = _last_turn(tokenizer, [*prompt, {"role": "assistant", "content": completion}])
    return ids[:end]


def encode_conversation(tokenizer: Tokenizer, messages: Messages, name: str = "a conversation") -> Document:
    """A conversation with the loss on every assistant turn; without a template, on the last turn only.

    The ids before each assistant turn are those that the sampler gets as the prompt of that turn.
    """
    turns = _checked(messages)
    replies = [i for i, turn in enumerate(turns) if i and turn["role"] == "assistant"]
    if not replies or replies[-1] != len(turns) - 1:
        raise InputError(f"{name} does not end with the assistant's answer to another message; add one to train on")
    for i in replies:
        if not turns[i]["content"].strip():
            raise InputError(f"{name} has an empty assistant turn (message {i}); write one or delete the line")
    if tokenizer.chat_template is None:
        *prompt, reply = turns
        answer = encode_answer(tokenizer, prompt, reply["content"])
        return prompt_completion(encode_prompt(tokenizer, prompt), answer, name)
    tokens: list[int] = []
    loss_mask: list[bool] = []
    rendered = ""
    for i in replies:
        prompt, reply, end = _last_turn(tokenizer, turns[: i + 1])
        if not prompt.startswith(rendered):
            raise InputError(f"{name}: the chat template changes the turns before message {i}; give a single turn")
        context = tokenizer.encode(prompt[len(rendered) :])
        tokens += [*context, *reply]
        loss_mask += [False] * len(context) + [True] * end + [False] * (len(reply) - end)
        rendered = render(tokenizer, turns[: i + 1], add_generation_prompt=False)
    return Document(tokens, loss_mask, name)


def _last_turn(tokenizer: Tokenizer, turns: Messages) -> tuple[str, list[int], int]:
    """(text of the prompt, ids of the last turn, number of those ids up to and including the stop token)."""
    prompt, whole = render(tokenizer, turns[:-1]), render(tokenizer, turns, add_generation_prompt=False)
    if not whole.startswith(prompt):
        raise InputError("the chat template's generation prompt does not begin the assistant's turn; give plain text")
    ids = tokenizer.encode(whole[len(prompt) :])
    end = next((k + 1 for k, token in enumerate(ids) if token in tokenizer.stop_ids), None)
    if end is None:  # the template writes no stop token
        ids, end = [*ids, tokenizer.stop_ids[0]], len(ids) + 1
    return prompt, ids, end


def _checked(messages: Messages) -> list[dict[str, Any]]:
    for index, message in enumerate(messages):
        if not (isinstance(message, Mapping) and all(isinstance(message.get(k), str) for k in ("role", "content"))):
            raise InputError(f"message {index} is {message!r}; give a dictionary with strings 'role' and 'content'")
    return [dict(message) for message in messages]


class _Generation(Extension):
    """`{% generation %}` marks the assistant's text for training masks; here it renders its contents."""

    tags: ClassVar = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    """Compiled in the environment of transformers: its filters, functions and whitespace control."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in transformers; jinja2's own filter escapes HTML characters and sorts keys."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)

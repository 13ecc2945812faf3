"""Messages to prompts, by the chat template published with the model.

A template is a program from whoever published the weights, so it runs in jinja2's immutable sandbox: it can read the
messages and the special tokens, and reach nothing of Python.
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
"""Dictionaries with the texts "role" and "content", the earliest first; checked by hand, to say which one is wrong."""


def encode_prompt(tokenizer: Tokenizer, messages_or_text: Messages | str) -> list[int]:
    """Returns a prompt's ids: a str is plain text, messages go through the chat template.

    BOS is put before plain text where the model expects it; a template writes its own. A base model has no template:
    the contents of the messages are joined by blank lines, ended by a newline and taken as plain text.
    """
    if isinstance(messages_or_text, str):
        text, plain = messages_or_text, True
    elif tokenizer.chat_template is None:
        text, plain = "\n\n".join(message["content"] for message in _checked(messages_or_text)) + "\n", True
    else:
        text, plain = render(tokenizer, messages_or_text), False
    ids = tokenizer.encode(text)
    return [tokenizer.bos_id, *ids] if plain and tokenizer.add_bos and tokenizer.bos_id is not None else ids


def render(tokenizer: Tokenizer, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
    """Returns the chat template's text for `messages`.

    Args:
        tokenizer: gives the template and the special tokens it writes.
        messages: see `Messages`.
        add_generation_prompt: end with the opening of the assistant's turn.
        variables: passed to the template (`enable_thinking`, `tools`, ...).
    """
    if tokenizer.chat_template is None:
        raise InputError("the tokenizer has no chat template; give plain text, or a model tuned on conversations")
    known = {"messages": _checked(messages), "add_generation_prompt": add_generation_prompt}
    try:
        return _compiled(tokenizer.chat_template).render({**tokenizer.special, **known, **variables})
    except Exception as error:  # whatever a foreign program can do wrong: syntax, types, sandbox, raise_exception
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the chat template failed: {detail}; change the messages or the template") from error


def encode_answer(tokenizer: Tokenizer, prompt: Messages | str, completion: str) -> list[int]:
    """Ids of a completion as the model would sample it after `encode_prompt(prompt)`, its end included."""
    if isinstance(prompt, str) or tokenizer.chat_template is None:
        return [*tokenizer.encode(completion), tokenizer.stop_ids[0]]
    _, ids, end = _turn(tokenizer, [*prompt, {"role": "assistant", "content": completion}])
    return ids[:end]


def encode_conversation(tokenizer: Tokenizer, messages: Messages, name: str = "a conversation") -> Document:
    """A conversation of which every assistant turn is learned; without a template only the last can be.

    Before each such turn stand the ids that the sampler gets for the turns so far.
    """
    turns = _checked(messages)
    places = [i for i, turn in enumerate(turns) if i and turn["role"] == "assistant"]
    if not places or places[-1] != len(turns) - 1:
        raise InputError(f"{name} does not end with the assistant's answer to something; that is what is learned")
    for i in places:
        if not turns[i]["content"].strip():
            raise InputError(f"{name} has an empty assistant turn (message {i}); write one or delete the line")
    if tokenizer.chat_template is None:
        *asked, answer = turns
        return prompt_completion(
            encode_prompt(tokenizer, asked), encode_answer(tokenizer, asked, answer["content"]), name
        )
    tokens, learned, before = [], [], ""
    for i in places:
        prompt, said, end = _turn(tokenizer, turns[: i + 1])
        if not prompt.startswith(before):
            raise InputError(f"{name}: the chat template rewrites what stands before message {i}; give a single turn")
        asked = tokenizer.encode(prompt[len(before) :])
        tokens += [*asked, *said]
        learned += [False] * len(asked) + [True] * end + [False] * (len(said) - end)
        before = render(tokenizer, turns[: i + 1], add_generation_prompt=False)
    return Document(tokens, learned, name)


def _turn(tokenizer: Tokenizer, turns: Messages) -> tuple[str, list[int], int]:
    """The text before the last turn, that turn's ids, and how many of these the assistant says: up to its end."""
    prompt, whole = render(tokenizer, turns[:-1]), render(tokenizer, turns, add_generation_prompt=False)
    if not whole.startswith(prompt):
        raise InputError("the chat template writes an answer otherwise than it asks for one; give plain text")
    said = tokenizer.encode(whole[len(prompt) :])
    end = next((k + 1 for k, token in enumerate(said) if token in tokenizer.stop_ids), None)
    if end is None:  # a template that leaves it to its reader to end a turn
        said, end = [*said, tokenizer.stop_ids[0]], len(said) + 1
    return prompt, said, end


def _checked(messages: Messages) -> list[dict[str, Any]]:
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise InputError(f"message {index} is {message!r}; give a dictionary with the texts 'role' and 'content'")
    return [dict(message) for message in messages]


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training masks; here it prints what it encloses."""

    tags: ClassVar = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    """The environment published templates are written for: Hugging Face's filters, functions and blank handling."""
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
    """jinja2's own filter escapes HTML characters and sorts keys."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)

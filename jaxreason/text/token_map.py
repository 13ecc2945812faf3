"""One vocabulary in the words of another: for models that guide a model of another family."""

import json
from pathlib import Path
from typing import NamedTuple

from jaxreason.errors import InputError
from jaxreason.text.tokenizer import Tokenizer

BY_TEXT = "text"


class TokenMap(NamedTuple):
    ids: list[int]
    """Of each of the target's tokens, the guides' token that stands for it; -1 where there is none."""
    unknown: int
    """What the guides read in the place of a token that has none."""


def token_map(target: Tokenizer, guides: Tokenizer, name: str, guide_name: str, *, source: str) -> TokenMap | None:
    """How the tokens of `target` become tokens of `guides`; None where they are the same, up to added ones at the end.

    `source` is "text", which maps tokens of equal text to each other and the end of a completion to its end, or a JSON
    file {target's token: guides' token (or its id)}, both as their vocabularies write them (`TokAlign`, arXiv
    2506.03523, and ThinkLogit's code have such files); empty for models of one family.
    """
    if source == BY_TEXT:
        return _by_text(target, guides)
    if source:
        return _read(Path(source), target, guides, guide_name)
    ours, theirs = (token_strings(one, min(target.vocab_size, guides.vocab_size)) for one in (target, guides))
    other = next((index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
    if other is not None or target.stop_ids[0] != guides.stop_ids[0]:
        at = f"token {other} is {ours[other]!r} and {theirs[other]!r}" if other is not None else "their ends differ"
        raise InputError(
            f"{name} and {guide_name} have different vocabularies ({at}): map tokens of equal text (`text`), or give a "
            "JSON file of the target's tokens to the guide's"
        )
    return None


def token_strings(tokenizer: Tokenizer, count: int) -> list[str]:
    """The text of each of the first `count` tokens within a text: the first one of a text may lose its space."""
    before = tokenizer.encode("a")[-1:]
    begin = len(tokenizer.decode(before))
    return [tokenizer.decode([*before, index])[begin:] for index in range(count)]


def _by_text(target: Tokenizer, guides: Tokenizer) -> TokenMap:
    known: dict[str, int] = {}
    for index, text in enumerate(token_strings(guides, guides.vocab_size)):
        if "�" not in text:  # part of a character: its bytes are not known from here
            known.setdefault(text, index)
    ids = [known.get(text, -1) if text else -1 for text in token_strings(target, target.vocab_size)]
    for index in target.stop_ids:
        ids[index] = guides.stop_ids[0]
    return TokenMap(ids, _unknown(guides))


def _read(file: Path, target: Tokenizer, guides: Tokenizer, guide_name: str) -> TokenMap:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the token map {file} cannot be read ({error}): give a JSON object of tokens") from error
    if not isinstance(entries, dict):
        raise InputError(f"the token map {file} holds {type(entries).__name__}: give a JSON object of tokens")
    ids = [-1] * target.vocab_size
    for token, image in entries.items():
        place = target.backend.token_id(token)
        if place is None:
            raise InputError(f"the token map {file} has {token!r}, which is no token of the target: take it out")
        found = guides.backend.token_id(image) if isinstance(image, str) else image
        if not isinstance(found, int) or not 0 <= found < guides.vocab_size:
            raise InputError(
                f"the token map {file} maps {token!r} to {image!r}, which is no token of {guide_name}: give one, or an "
                f"id from 0 to {guides.vocab_size - 1}"
            )
        ids[place] = found
    return TokenMap(ids, _unknown(guides))


def _unknown(guides: Tokenizer) -> int:
    """The unknown token, else the padding, else what ends a completion."""
    names = (guides.special[name] for name in ("unk_token", "pad_token") if name in guides.special)
    found = (guides.backend.token_id(name) for name in names)
    return next((index for index in found if index is not None), guides.stop_ids[0])

"""Token maps: a target's tokens in the vocabulary of guides from another model family."""

import json
from pathlib import Path

import jax.numpy as jnp

from jaxreason.errors import InputError
from jaxreason.text.tokenizer import Tokenizer
from jaxreason.types import TokenMap

BY_TEXT = "text"


def make_token_map(
    target: Tokenizer, guide: Tokenizer, name: str, guide_name: str, *, source: str, guide_vocab: int
) -> TokenMap | None:
    """Maps the tokens of `target` to those of `guide`; None where they are the same, up to tokens added at the end.

    `source` is "text", which maps tokens of equal text to each other and the target's stop tokens to the guide's, or a
    JSON file {target's token: guide's token (or its id)}, both as their vocabularies write them (`TokAlign`, arXiv
    2506.03523, and ThinkLogit's code have such files); empty for models of one family. `guide_vocab` is the number of
    rows of the guides' embeddings.
    """
    if not source:
        _check_one_family(target, guide, name, guide_name)
        return None
    ids = _map_by_text(target, guide) if source == BY_TEXT else _load_map(Path(source), target, guide, guide_name)
    unknown = _unknown(guide)
    if max(*ids, unknown) >= guide_vocab:
        raise InputError(
            f"the token map uses token {max(*ids, unknown)} of {guide_name}, but the guides know {guide_vocab} tokens: "
            "use the tokenizer published with the guide"
        )
    return TokenMap(jnp.asarray(ids, jnp.int32), jnp.int32(unknown))


def token_strings(tokenizer: Tokenizer, count: int) -> list[str]:
    """The text of each of the first `count` tokens inside a text: the first token of a text may lose its space."""
    before = tokenizer.encode("a")[-1:]
    begin = len(tokenizer.decode(before))
    return [tokenizer.decode([*before, index])[begin:] for index in range(count)]


def _check_one_family(target: Tokenizer, guide: Tokenizer, name: str, guide_name: str) -> None:
    ours, theirs = (token_strings(each, min(target.vocab_size, guide.vocab_size)) for each in (target, guide))
    differs = next((index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
    if differs is None and target.stop_ids[0] == guide.stop_ids[0]:
        return
    where = "their stop tokens differ"
    if differs is not None:
        where = f"token {differs} is {ours[differs]!r} and {theirs[differs]!r}"
    raise InputError(
        f"{name} and {guide_name} have different vocabularies ({where}): map tokens of equal text (`text`), or give a "
        "JSON file of the target's tokens to the guide's"
    )


def _map_by_text(target: Tokenizer, guide: Tokenizer) -> list[int]:
    known: dict[str, int] = {}
    for index, text in enumerate(token_strings(guide, guide.vocab_size)):
        if "�" not in text:  # part of a character: its text does not identify its bytes
            known.setdefault(text, index)
    ids = [known.get(text, -1) if text else -1 for text in token_strings(target, target.vocab_size)]
    for index in target.stop_ids:
        ids[index] = guide.stop_ids[0]
    return ids


def _load_map(file: Path, target: Tokenizer, guide: Tokenizer, guide_name: str) -> list[int]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the token map {file} cannot be read ({error}): give a JSON object of tokens") from error
    if not isinstance(entries, dict):
        raise InputError(f"the token map {file} holds {type(entries).__name__}: give a JSON object of tokens")
    ids = [-1] * target.vocab_size
    for token, image in entries.items():
        index = target.backend.token_id(token)
        if index is None:
            raise InputError(f"the token map {file} has {token!r}, which is no token of the target: remove it")
        image_id = guide.backend.token_id(image) if isinstance(image, str) else image
        if not isinstance(image_id, int) or not 0 <= image_id < guide.vocab_size:
            raise InputError(
                f"the token map {file} maps {token!r} to {image!r}, which is no token of {guide_name}: give one, or an "
                f"id from 0 to {guide.vocab_size - 1}"
            )
        ids[index] = image_id
    return ids


def _unknown(guide: Tokenizer) -> int:
    """The unknown token, else the padding token, else the first stop token."""
    names = (guide.special[name] for name in ("unk_token", "pad_token") if name in guide.special)
    ids = (guide.backend.token_id(name) for name in names)
    return next((index for index in ids if index is not None), guide.stop_ids[0])

"""Texts of different lengths to rows of one length, without one seeing another."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxreason.errors import InputError
from jaxreason.types import Packed


class Document(NamedTuple):
    tokens: Sequence[int]
    learned: Sequence[bool] | None = None
    """True on tokens that are learned, the others are only read; None: all. The first never is: nothing predicts it."""
    name: str = "a text"
    """What to call it in an error: `lessons.jsonl line 7`."""


def answered(prompt: Sequence[int], completion: Sequence[int], name: str = "a text") -> Document:
    """A prompt that is read and a completion that is learned."""
    return Document([*prompt, *completion], [False] * len(prompt) + [True] * len(completion), name)


def pack(documents: Iterable[Document], *, rows: int, length: int) -> Packed:
    """Fills `rows` rows of `length` tokens, each document in the first row with room, until one fits nowhere.

    That one is left out: take the next batch from a fresh stream, or from a position counted in documents
    (`count_packed`).
    """
    tokens, segments = np.zeros((2, rows, length), np.int32)
    mask = np.zeros((rows, length), bool)
    used, count = np.zeros((2, rows), np.int64)
    for document in documents:
        size = len(document.tokens)
        if size > length:
            raise InputError(
                f"{document.name} has {size} tokens, more than a row of {length}: shorten it or lengthen the rows"
            )
        fitting = np.flatnonzero(used + size <= length)
        if not fitting.size:
            break
        row, begin = fitting[0], used[fitting[0]]
        tokens[row, begin : begin + size] = document.tokens
        mask[row, begin : begin + size] = True if document.learned is None else document.learned
        mask[row, begin : begin + 1] = False
        used[row] += size
        count[row] += 1
        segments[row, begin : begin + size] = count[row]
    return Packed(tokens, segments, mask)


def count_packed(packed: Packed) -> int:
    """How many documents the rows hold."""
    return int(packed.segments.max(axis=1).sum())


def fitted(documents: Iterable[Document], length: int, *, truncate: bool) -> tuple[list[Document], int]:
    """The documents, none longer than `length`, and how many were cut or, with nothing to learn left, dropped.

    Without `truncate` a longer one is refused.
    """
    fitting, cut = [], 0
    for document in documents:
        if len(document.tokens) > length:
            if not truncate:
                raise InputError(
                    f"{document.name} has {len(document.tokens)} tokens, more than a row of {length}: lengthen "
                    "the rows (--length), or cut it with --truncate"
                )
            cut += 1
            learned = None if document.learned is None else document.learned[:length]
            document = document._replace(tokens=document.tokens[:length], learned=learned)
        if document.learned is None or any(document.learned[1:]):
            fitting.append(document)
    return fitting, cut

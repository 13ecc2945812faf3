"""Texts of different lengths to rows of one length, without one seeing another."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxreason.errors import InputError
from jaxreason.types import Packed


class Document(NamedTuple):
    tokens: list[int]
    learned_from: int = 1
    """The first token that is learned; a prompt's tokens before it are only read."""


def pack(documents: Iterable[Document], *, rows: int, length: int) -> Packed:
    """Fills `rows` rows of `length` tokens, each document in the first row with room, until one fits nowhere.

    That one is left out: take the next batch from a fresh stream, or from a position counted in documents.
    """
    tokens, segments = np.zeros((2, rows, length), np.int32)
    mask = np.zeros((rows, length), bool)
    used, count = np.zeros((2, rows), np.int64)
    for document in documents:
        size = len(document.tokens)
        if size > length:
            raise InputError(f"a text has {size} tokens, more than a row of {length}: shorten it or lengthen the rows")
        fitting = np.flatnonzero(used + size <= length)
        if not fitting.size:
            break
        row, begin = fitting[0], used[fitting[0]]
        tokens[row, begin : begin + size] = document.tokens
        mask[row, begin + max(document.learned_from, 1) : begin + size] = True
        used[row] += size
        count[row] += 1
        segments[row, begin : begin + size] = count[row]
    return Packed(tokens, segments, mask)

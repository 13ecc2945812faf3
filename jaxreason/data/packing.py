"""Texts of different lengths to rows of one length, without one seeing another."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxreason.errors import InputError
from jaxreason.text.documents import Document
from jaxreason.types import PackedBatch

ROOMS = 8
"""Into how many sizes the number of tokens that a row learns is rounded up: each is compiled once."""


class Placement(NamedTuple):
    document: Document
    row: int
    begin: int


def first_fit(documents: Iterable[Document], *, rows: int, length: int) -> Iterator[Placement]:
    """Each document in the first of `rows` rows of `length` tokens with room, until one fits nowhere.

    That one is left out: take the next batch from a fresh stream, or from a position counted in documents.
    """
    used = np.zeros(rows, np.int64)
    for document in documents:
        size = len(document.tokens)
        if size > length:
            raise InputError(
                f"{document.name} has {size} tokens, more than a row of {length}: shorten it or lengthen the rows"
            )
        fitting = np.flatnonzero(used + size <= length)
        if not fitting.size:
            break
        yield Placement(document, int(fitting[0]), int(used[fitting[0]]))
        used[fitting[0]] += size


def pack(placed: Iterable[Placement], *, rows: int, length: int) -> PackedBatch:
    """The rows, of documents that `first_fit` put there."""
    tokens, segments = np.zeros((2, rows, length), np.int32)
    mask, count = np.zeros((rows, length), bool), np.zeros(rows, np.int32)
    for document, row, begin in placed:
        end = begin + len(document.tokens)
        tokens[row, begin:end] = document.tokens
        mask[row, begin:end] = True if document.loss_mask is None else document.loss_mask
        mask[row, begin : begin + 1] = False
        count[row] += 1
        segments[row, begin:end] = count[row]
    room = -(-mask.sum(axis=1).max() // (length / ROOMS))
    first = np.argsort(~mask, axis=1, kind="stable")[:, : max(1, int(room * length / ROOMS))]
    return PackedBatch(tokens, segments, np.where(np.take_along_axis(mask, first, axis=1), first, 0).astype(np.int32))


def pack_teacher_topk(
    placed: Sequence[Placement], *, rows: int, room: int
) -> tuple[Int[np.ndarray, "P M C"], Float[np.ndarray, "P M C"]] | None:
    """What teachers stored of the same documents, in the order of `Packed.places`; None where they stored nothing."""
    if any(document.topk is None for document, *_ in placed):
        return None
    shape, used = (rows, room, placed[0].document.topk[0].shape[1]), np.zeros(rows, np.int32)
    ids, logps = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for document, row, _ in placed:
        begin = used[row]
        used[row] += len(document.topk[0])
        ids[row, begin : used[row]], logps[row, begin : used[row]] = document.topk
    return ids, logps


def filter_or_truncate(documents: Iterable[Document], length: int, *, truncate: bool) -> tuple[list[Document], int]:
    """The documents, none longer than `length`, and how many were cut or, with nothing to learn left, dropped.

    Without `truncate` a longer one is refused.
    """
    fitting, cut = [], 0
    for document in documents:
        if len(document.tokens) > length:
            if not truncate:
                raise InputError(
                    f"{document.name} has {len(document.tokens)} tokens, more than a row of {length}: lengthen the "
                    "rows (--length), or cut it with --truncate"
                )
            cut += 1
            loss_mask = None if document.loss_mask is None else document.loss_mask[:length]
            document = document._replace(tokens=document.tokens[:length], loss_mask=loss_mask)
        if document.loss_mask is None or any(document.loss_mask[1:]):
            fitting.append(document)
    return fitting, cut

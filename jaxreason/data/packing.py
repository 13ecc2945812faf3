"""Packs documents of different lengths into rows of one length; segment ids keep their attention apart."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxreason.errors import InputError
from jaxreason.text.documents import Document
from jaxreason.types import PackedBatch

TARGET_BUCKETS = 8
"""The number of targets per row is rounded up to a multiple of `length / TARGET_BUCKETS`; each is compiled once."""


class Placement(NamedTuple):
    document: Document
    row: int
    begin: int


def first_fit(documents: Iterable[Document], *, rows: int, length: int) -> Iterator[Placement]:
    """Places each document in the first of `rows` rows with enough free tokens; stops at the first that fits in none.

    That document is consumed but not placed: begin the next batch at a position counted in documents.
    """
    used = np.zeros(rows, np.int64)
    for document in documents:
        size = len(document.tokens)
        if size > length:
            raise InputError(
                f"{document.name} has {size} tokens, more than a row of {length}: shorten it or use longer rows"
            )
        fitting = np.flatnonzero(used + size <= length)
        if not fitting.size:
            break
        yield Placement(document, int(fitting[0]), int(used[fitting[0]]))
        used[fitting[0]] += size


def pack(placements: Iterable[Placement], *, rows: int, length: int) -> PackedBatch:
    """The batch of documents placed by `first_fit`."""
    tokens, segments = np.zeros((2, rows, length), np.int32)
    mask, count = np.zeros((rows, length), bool), np.zeros(rows, np.int32)
    for document, row, begin in placements:
        end = begin + len(document.tokens)
        tokens[row, begin:end] = document.tokens
        mask[row, begin:end] = True if document.loss_mask is None else document.loss_mask
        mask[row, begin : begin + 1] = False
        count[row] += 1
        segments[row, begin:end] = count[row]
    buckets = -(-mask.sum(axis=1).max() // (length / TARGET_BUCKETS))
    first = np.argsort(~mask, axis=1, kind="stable")[:, : max(1, int(buckets * length / TARGET_BUCKETS))]
    return PackedBatch(tokens, segments, np.where(np.take_along_axis(mask, first, axis=1), first, 0).astype(np.int32))


def pack_teacher_topk(
    placements: Sequence[Placement], *, rows: int, targets: int
) -> tuple[Int[np.ndarray, "P M C"], Float[np.ndarray, "P M C"]] | None:
    """The documents' teacher top-k, in the order of `PackedBatch.target_positions`; None if any document has none."""
    topks = [document.topk for document, *_ in placements if document.topk is not None]
    if len(topks) < len(placements):
        return None
    shape, used = (rows, targets, topks[0][0].shape[1]), np.zeros(rows, np.int32)
    ids, logps = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for (_, row, _), topk in zip(placements, topks, strict=True):
        begin = used[row]
        used[row] += len(topk[0])
        ids[row, begin : used[row]], logps[row, begin : used[row]] = topk
    return ids, logps


def filter_or_truncate(documents: Iterable[Document], length: int, *, truncate: bool) -> tuple[list[Document], int]:
    """(documents of at most `length` tokens, number of truncated ones); those left without a loss are dropped.

    Without `truncate` a longer document is an InputError.
    """
    fitting, truncated = [], 0
    for document in documents:
        if len(document.tokens) > length:
            if not truncate:
                raise InputError(
                    f"{document.name} has {len(document.tokens)} tokens, more than a row of {length}: use a larger "
                    "--seq-len, or --truncate"
                )
            truncated += 1
            loss_mask = None if document.loss_mask is None else document.loss_mask[:length]
            document = document._replace(tokens=document.tokens[:length], loss_mask=loss_mask)
        if document.loss_mask is None or any(document.loss_mask[1:]):
            fitting.append(document)
    return fitting, truncated

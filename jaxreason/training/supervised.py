"""Next-token prediction on given documents, for pre-training and fine-tuning."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxreason.data.packing import Placement, first_fit, pack, pack_teacher_topk
from jaxreason.models.scoring import TopK, score_packed
from jaxreason.models.transformer import Transformer
from jaxreason.text.documents import Document
from jaxreason.training.state import TrainState, data_order
from jaxreason.training.updates import LossStats
from jaxreason.types import Array, PackedBatch, Params


class SFTBatch(NamedTuple):
    packed: PackedBatch
    weights: Float[Array, "P M"]
    """1 / number of target tokens of the whole batch for each of them, 0 for padding."""
    consumed: Int[Array, "*parts"] | None
    """Documents in the batch (per device under `pmap`)."""
    topk: TopK | None = None
    """The teacher's most probable tokens [P M C] at each target, where they were stored."""


def make_sft_batch(documents: Iterable[Document], *, rows: int, length: int) -> SFTBatch:
    """As many of the next documents as fit, first fit, into `rows` rows of `length` tokens.

    The mean over target tokens is fixed before the batch is cut into micro-batches or over devices.
    """
    return pack_placed(list(first_fit(documents, rows=rows, length=length)), rows=rows, length=length)


def pack_placed(placed: Sequence[Placement], *, rows: int, length: int) -> SFTBatch:
    """The batch of documents that already have their row."""
    packed = pack(placed, rows=rows, length=length)
    topk = pack_teacher_topk(placed, rows=rows, targets=packed.target_positions.shape[1])
    weights = packed.loss_mask / np.maximum(packed.loss_mask.sum(), 1).astype(np.float32)
    return SFTBatch(packed, weights, np.array(len(placed), np.int32), topk and TopK(*topk))


def sft_loss(params: Params, batch: SFTBatch, *, model: Transformer) -> tuple[Float[Array, ""], LossStats]:
    """-mean_t log p(token t | its own document before t), over the target tokens."""
    scores = score_packed(params, batch.packed, model=model)
    loss = -jnp.sum(batch.weights * scores.logps)
    sums = {"loss": loss, "entropy": jnp.sum(batch.weights * scores.entropy)}
    return loss, jax.lax.stop_gradient(LossStats(sums, {}))


def sft_batch_metrics(batch: SFTBatch) -> dict[str, int]:
    """Target tokens, and all tokens that go through the update."""
    return {"tokens": int(batch.packed.loss_mask.sum()), "train_tokens": int((batch.packed.segments > 0).sum())}


def shuffled_stream(documents: Sequence[Document], state: TrainState) -> Iterator[Document]:
    """The documents that come next, without end: another order every epoch."""
    return (documents[i] for i in data_order(state, len(documents)))

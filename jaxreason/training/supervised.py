"""Learning from given texts: next-token prediction, for pre-training and fine-tuning."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxreason.data.packing import Placement, first_fit, pack, pack_teacher_topk
from jaxreason.models.lora import merge_trees
from jaxreason.models.scoring import TopK, score_packed
from jaxreason.models.transformer import Transformer
from jaxreason.text.documents import Document
from jaxreason.training.loop import data_order
from jaxreason.training.state import TrainState, skipped_updates
from jaxreason.training.updates import Metrics, Statistics, gradient_step
from jaxreason.types import PackedBatch, Params


class SFTBatch(NamedTuple):
    packed: PackedBatch
    weights: Float[Array | np.ndarray, "P M"]
    """1 / number of learned tokens of the whole batch for each of them, 0 for what fills up."""
    top: TopK | None = None
    """The teacher's most probable tokens [P M C] in the place of each learned one, where they were stored."""


def batch_of(placed: Sequence[Placement], *, rows: int, length: int) -> SFTBatch:
    """Rows of documents; the mean over their learned tokens is fixed before the batch is cut into micro-batches or over
    devices."""
    packed = pack(placed, rows=rows, length=length)
    top = pack_teacher_topk(placed, rows=rows, room=packed.target_positions.shape[1])
    weights = packed.loss_mask / np.maximum(packed.loss_mask.sum(), 1).astype(np.float32)
    return SFTBatch(packed, weights, top and TopK(*top))


def sft_loss(params: Params, batch: SFTBatch, *, model: Transformer) -> tuple[Float[Array, ""], Statistics]:
    """-mean_t log p(token t | its own text before t), over the learned tokens."""
    scores = score_packed(params, batch.packed, model=model)
    loss = -jnp.sum(batch.weights * scores.logps)
    sums = {"loss": loss, "entropy": jnp.sum(batch.weights * scores.entropy)}
    return loss, jax.lax.stop_gradient(Statistics(sums, {}))


def supervised_update(
    state: TrainState,
    batch: Any,
    *given: Any,
    loss: Callable[..., tuple[Float[Array, ""], Statistics]],
    optimizer: optax.GradientTransformation,
    frozen: Params = None,
    micro_batches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step on `loss(params, batch, *given)`, its settings filled in: `sft_loss`, `pair_loss`, `distill_loss`, ...

    `given` are further arrays, a teacher's parameters for example, that are not cut into micro-batches. What the state
    trains lies over the `frozen` parameters, if any. The rest as in `gradient_step`.
    """

    def laid_over(params: Params, batch: Any) -> tuple[Float[Array, ""], Statistics]:
        return loss(merge_trees(frozen, params), batch, *given)

    state, (sums, _), norm = gradient_step(
        state, batch, loss=laid_over, optimizer=optimizer, micro_batches=micro_batches, axis_name=axis_name
    )
    state = state._replace(step=state.step + 1)
    return state, {**sums, "grad_norm": norm, "skipped_updates": skipped_updates(state)}


def text_steps(
    state: TrainState,
    documents: Callable[[TrainState], Iterable[Document]],
    *,
    steps: int,
    rows: int,
    length: int,
    update: Callable[[TrainState, SFTBatch], tuple[TrainState, Metrics]],
) -> Iterator[tuple[TrainState, Metrics]]:
    """Steps `state.step` to `steps`, each on `rows` rows filled from `documents(state)`: a restart repeats them.

    `state.position` counts the documents that were learned.
    """
    for _ in range(int(state.step), steps):
        begin = time.perf_counter()
        placed = list(first_fit(documents(state), rows=rows, length=length))
        batch = batch_of(placed, rows=rows, length=length)
        state, metrics = update(state, batch)
        state = state._replace(position=state.position + len(placed))
        metrics = {name: float(value) for name, value in metrics.items()}
        counts = {"tokens": int(batch.packed.loss_mask.sum()), "train_tokens": int((batch.packed.segments > 0).sum())}
        yield state, {**metrics, **counts, "seconds_update": time.perf_counter() - begin}


def shuffled_stream(documents: Sequence[Document], state: TrainState) -> Iterator[Document]:
    """The documents that come next, without end: in another order every epoch."""
    return (documents[i] for i in data_order(state, len(documents)))

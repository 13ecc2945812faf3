"""Continuous batching: finished completions leave the batch, waiting prompts join it.

`SlotTable` decides; `Sampler` executes. A completion draws from its own keys: it does not depend on slot assignment.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Bool, Int, Key

from jaxreason.distributed.mesh import (
    BATCH_AXES,
    constrain,
    gather_to_host,
    num_batch_shards,
    sampling_params,
    shard_batch,
)
from jaxreason.models.attention import KV
from jaxreason.sampling.decoder import Decoder, gather_rows, insert_rows, resize_cache
from jaxreason.sampling.draw import Sampling
from jaxreason.sampling.generate import SampledTokens, SamplerState, StopCriteria, decode_chunk, prefill_and_sample
from jaxreason.sampling.slot_table import STEPS, Admit, Decode, ResizeCache, Shrink, SlotTable
from jaxreason.types import Array, Params, Prompts, Rollouts


@dataclass(frozen=True)
class Sampler:
    """`Sampler(...)(params, prompts, keys=keys)` is `generate` for any number of prompts, `rows` completions at a time.

    A static argument of the jitted programs below: equal samplers share what is compiled. Calls return host arrays.
    On a `mesh`, prompts are sharded over its batch axes, parameters cast to `dtype` and gathered over `fsdp`.
    """

    decoder: Decoder
    sampling: Sampling
    max_tokens: int
    stop_ids: tuple[int, ...]
    rows: int = 256
    mesh: Mesh | None = None
    dtype: DTypeLike = jnp.float32

    def __call__(
        self,
        params: Params,
        prompts: Prompts,
        *,
        keys: Key[jax.Array, "P G"],
        row_limits: Int[np.ndarray, "P"] | None = None,
    ) -> Rollouts:
        """Completions of prompt p end after `row_limits[p]` tokens, or `max_tokens` if that is fewer."""
        table = self._slot_table(keys)
        for _ in self._run(table, params, prompts, keys, row_limits):
            pass
        return table.rollouts(slice(None), prompts, self.stop_ids)

    def stream(
        self, params: Params, prompts: Prompts, *, keys: Key[jax.Array, "P G"]
    ) -> Iterator[tuple[Int[np.ndarray, "N"], Rollouts]]:
        """Yields (prompt indices, rollouts) as groups finish."""
        table = self._slot_table(keys)
        for finished in self._run(table, params, prompts, keys):
            if finished.size:
                yield finished, table.rollouts(finished, _select(prompts, finished), self.stop_ids)

    def _slot_table(self, keys: Key[jax.Array, "P G"]) -> SlotTable:
        (P, G), shards = keys.shape, num_batch_shards(self.mesh)
        return SlotTable(P, G, self.max_tokens, rows=self.rows, shards=shards, steps=STEPS)

    def _run(
        self,
        table: SlotTable,
        params: Params,
        prompts: Prompts,
        keys: Key[jax.Array, "P G"],
        row_limits: Int[np.ndarray, "P"] | None = None,
    ) -> Iterator[Int[np.ndarray, "N"]]:
        """Executes the actions of `table`; yields the prompts that finished after each."""
        params, live = sampling_params(params, self.mesh, self.dtype), None
        limits = np.full(len(keys), self.max_tokens) if row_limits is None else np.asarray(row_limits)
        steps = min(table.steps, max(1, self.max_tokens - 1))
        while action := table.next_action():
            sampled = None
            match action:
                case Admit(slots, which, real):
                    batch = _select(prompts, which), keys[which], np.where(real, limits[which], 0).astype(np.int32)
                    batch = shard_batch(batch, self.mesh)
                    if live is None:
                        live, sampled = prefill(params, *batch, sampler=self, cache_size=table.cache_size)
                    else:
                        live, sampled = insert(params, *batch, live, slots, sampler=self)
                case Decode(max_steps, min_alive):
                    live, sampled = decode(params, live, max_steps, min_alive, sampler=self, steps=steps)
                case Shrink():
                    live = shrink(live, *action, mesh=self.mesh)
                case ResizeCache(first, cache_size):
                    live = resize(live, first, mesh=self.mesh, cache_size=cache_size)
            table.assign_slots(action)
            if sampled is not None:
                yield table.record(action, *gather_to_host((sampled, live.alive)))


def concat_in_order(parts: Sequence[tuple[np.ndarray, Rollouts]]) -> Rollouts:
    """All that `stream` yielded, in the order of the prompts."""
    order = np.argsort(np.concatenate([indices for indices, _ in parts]))
    return jax.tree.map(lambda *xs: np.concatenate(xs)[order], *(part for _, part in parts))


def _select(prompts: Prompts, which: Int[np.ndarray, "N"]) -> Prompts:
    return jax.tree.map(lambda x: x[which], prompts)


# --- the jitted programs, one per action ---


@partial(jax.jit, static_argnames=("sampler", "cache_size"))
def prefill(
    params: Params,
    prompts: Prompts,
    keys: Key[jax.Array, "P G"],
    row_limits: Int[Array, "P"],
    *,
    sampler: Sampler,
    cache_size: int,
) -> tuple[SamplerState, SampledTokens]:
    outputs = prefill_and_sample(
        params,
        prompts,
        keys,
        row_limits,
        cache_size=cache_size,
        decoder=sampler.decoder,
        sampling=sampler.sampling,
        limits=StopCriteria(sampler.max_tokens, sampler.stop_ids),
    )
    return _constrain_rows(outputs, sampler.mesh)


@partial(jax.jit, static_argnames="sampler", donate_argnames="live")
def insert(
    params: Params,
    prompts: Prompts,
    keys: Key[jax.Array, "Q G"],
    row_limits: Int[Array, "Q"],
    live: SamplerState,
    slots: Int[Array, "Q"],
    *,
    sampler: Sampler,
) -> tuple[SamplerState, SampledTokens]:
    new, first = prefill(params, prompts, keys, row_limits, sampler=sampler, cache_size=1)
    state = insert_rows(live.state, new.state, slots)
    rest = (x.at[slots].set(y) for x, y in zip(live[1:], new[1:], strict=True))
    return _constrain_rows((SamplerState(state, *rest), first), sampler.mesh)


@partial(jax.jit, static_argnames=("sampler", "steps"), donate_argnames="live")
def decode(
    params: Params,
    live: SamplerState,
    max_steps: Int[Array, ""] | int,
    min_alive: tuple[Int[Array, ""] | int, Int[Array, ""] | int] = (0, 0),
    *,
    sampler: Sampler,
    steps: int,
) -> tuple[SamplerState, SampledTokens]:
    outputs = decode_chunk(
        params,
        live,
        steps=steps,
        max_steps=max_steps,
        min_alive=min_alive,
        decoder=sampler.decoder,
        sampling=sampler.sampling,
        limits=StopCriteria(sampler.max_tokens, sampler.stop_ids),
    )
    return _constrain_rows(outputs, sampler.mesh)


@partial(jax.jit, static_argnames="mesh")
def shrink(
    live: SamplerState,
    slots: Int[Array, "Q"],
    members: Int[Array, "Q H"],
    real: Bool[Array, "Q H"],
    *,
    mesh: Mesh | None,
) -> SamplerState:
    state = gather_rows(live.state, slots, members, live.alive.shape[1])
    keys, last, alive, row_limits = (x[slots[:, None], members] for x in live[1:])
    return _constrain_rows(SamplerState(state, keys, last, alive & real, row_limits), mesh)


@partial(jax.jit, static_argnames=("mesh", "cache_size"))
def resize(live: SamplerState, first: Int[Array, ""] | int, *, mesh: Mesh | None, cache_size: int) -> SamplerState:
    return _constrain_rows(live._replace(state=resize_cache(live.state, first, cache_size)), mesh)


def _constrain_rows(tree: Any, mesh: Mesh | None) -> Any:
    """Shards prompts over the batch axes of the mesh, and key/value heads over `tensor`.

    Caches have no unit axes (`drop_unit_axes`), but an axis that is sharded is not a unit axis.
    """
    if mesh is None:
        return tree
    rows = BATCH_AXES if num_batch_shards(mesh) > 1 else None
    heads = "tensor" if mesh.shape["tensor"] > 1 else None

    def constrain_leaf(x: Any) -> Any:
        if not isinstance(x, KV):
            return constrain(x, mesh, rows) if x.ndim else constrain(x, mesh)
        return KV(*(constrain(y, mesh, *_kv_axes(y.ndim, rows, heads)) for y in x))

    return jax.tree.map(constrain_leaf, tree, is_leaf=lambda x: isinstance(x, KV))


def _kv_axes(ndim: int, rows: tuple[str, ...] | None, heads: str | None) -> list[Any]:
    axes: list[Any] = [None] * ndim
    if heads:
        axes[-3] = heads
    if rows:
        axes[0] = rows
    return axes

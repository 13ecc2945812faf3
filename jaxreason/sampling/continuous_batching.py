"""The sampler's host side: which completions run beside each other, so that a long one does not hold back the rest.

Any number of prompts share a fixed number of places. When enough of them are done, the next ones take their places;
when none is waiting and few completions are left, these go on alone in a smaller batch. The cache has room for the
oldest completion alive, not for the longest one allowed. None of this changes a text: a completion's randomness is its
own, and its place and its slots mean nothing to it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, Key

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
from jaxreason.types import AnyPrompts, Params, Rollouts

STEPS = 64
"""Tokens between two looks at what is done, at most; also the smallest cache, which doubles from there."""
SHRINK = 4
"""A batch shrinks to a quarter, and a quarter of the places is filled at a time: few sizes, each compiled once."""
SMALLEST = 4
"""Completions below which a smaller batch is hardly faster: reading the weights is what takes the time."""


class Sampler:
    """`Sampler(...)(params, prompts, keys=keys)` is `generate` for any number of prompts, `rows` completions at a time.

    This is where the sampler's `jit`, donation and shardings stand. Calls return host arrays. On a `mesh` completions
    lie over its rows, parameters as `dtype` and uncut over `fsdp`; without one they are taken as they are.
    """

    def __init__(
        self,
        decoder: Decoder,
        sampling: Sampling,
        *,
        max_tokens: int,
        stop_ids: tuple[int, ...],
        rows: int = 256,
        mesh: Mesh | None = None,
        dtype: Any = jnp.float32,
    ):
        self.rows, self.limits, self.mesh, self.dtype = rows, StopCriteria(max_tokens, stop_ids), mesh, dtype
        how = {"decoder": decoder, "sampling": sampling, "limits": self.limits}

        def laid_out(function: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args, **named: _keep(function(*args, **named), mesh)

        self.prefill_and_sample = jax.jit(laid_out(partial(prefill_and_sample, **how)), static_argnames="slots")
        self.insert_rows = jax.jit(laid_out(partial(_insert_rows, **how)), donate_argnames="live")
        steps = min(STEPS, max(1, max_tokens - 1))
        self.decode_chunk = jax.jit(laid_out(partial(decode_chunk, steps=steps, **how)), donate_argnames="live")
        self.gather_rows = jax.jit(laid_out(_gather_rows))
        self.resize_cache = jax.jit(laid_out(_resize_cache), static_argnames="slots")

    def __call__(
        self,
        params: Params,
        prompts: AnyPrompts,
        *,
        keys: Key[Array, "P G"],
        most: Int[np.ndarray, "P"] | None = None,
    ) -> Rollouts:
        """`most` are tokens at which each prompt's completions are cut, where that is sooner than `max_tokens`."""
        book = SlotTable(*keys.shape, self.limits)
        for _ in self._run(params, prompts, keys, book, most):
            pass
        return book.rollouts(prompts, np.arange(len(keys)))

    def stream(
        self, params: Params, prompts: AnyPrompts, *, keys: Key[Array, "P G"]
    ) -> Iterator[tuple[np.ndarray, Rollouts]]:
        """The same in parts: some places in `prompts` and their rollouts, as soon as all of these have ended."""
        book = SlotTable(*keys.shape, self.limits)
        for done in self._run(params, prompts, keys, book):
            if done.size:
                yield done, book.rollouts(_some(prompts, done), done)

    def _run(
        self,
        params: Params,
        prompts: AnyPrompts,
        keys: Key[Array, "P G"],
        book: "SlotTable",
        most: Int[np.ndarray, "P"] | None = None,
    ) -> Iterator[np.ndarray]:
        (count, group_size), over = keys.shape, num_batch_shards(self.mesh)
        params = sampling_params(params, self.mesh, self.dtype)
        most = np.full(count, self.limits.max_tokens, np.int32) if most is None else np.asarray(most)
        places = _whole(min(count, max(1, self.rows // group_size)), over)
        batch = _whole(max(1, places // SHRINK), over)

        def next_of(waiting: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, tuple, np.ndarray]:
            """Prompts for `size` places, which of them are real, what the device needs of them, and who waits on."""
            chosen, rest = waiting[:size], waiting[size:]
            real = np.arange(size) < chosen.size
            chosen = np.pad(chosen, (0, size - chosen.size), mode="edge")  # one shape: what is not real ends at once
            given = _some(prompts, chosen), keys[chosen], np.where(real, most[chosen], 0).astype(np.int32)
            return chosen, real, shard_batch(given, self.mesh), rest

        slots = cache_bucket(1)
        chosen, real, given, waiting = next_of(np.arange(count), places)
        live, first = self.prefill_and_sample(params, *given, slots=slots)
        book.assign_all(chosen, real)
        yield book.write(first, live.alive)
        while waiting.size or book.alive.any():
            while waiting.size and (free := np.flatnonzero(~book.alive.any(axis=1))).size >= batch:
                chosen, real, given, waiting = next_of(waiting, batch)
                live, first = self.insert_rows(params, *given, live=live, places=free[:batch])
                book.assign_slots(free[:batch], chosen, real, int(live.state.slot))
                yield book.write(first, live.alive, free[:batch])
            if not book.alive.any():
                continue
            while not waiting.size and book.alive.sum() <= _leave(book.alive.size, over):
                live = self.gather_rows(live, *book.shrink(over))
            slot = int(live.state.slot)
            if slot == slots:
                oldest = int(book.begin[book.alive.any(axis=1)].min())
                slots = cache_bucket(slot - oldest + STEPS // 2)
                live = self.resize_cache(live, oldest, slots=slots)
                book.begin, slot = book.begin - oldest, slot - oldest
            min_alive = (len(book.alive) - batch, 0) if waiting.size else (0, _leave(book.alive.size, over))
            live, drawn = self.decode_chunk(params, live=live, most=min(STEPS, slots - slot), min_alive=min_alive)
            yield book.write(drawn, live.alive, since=slot)


def concat_in_order(parts: Sequence[tuple[np.ndarray, Rollouts]]) -> Rollouts:
    """All that `stream` gave, in the order of the prompts."""
    order = np.argsort(np.concatenate([done for done, _ in parts]))
    return jax.tree.map(lambda *xs: np.concatenate(xs)[order], *(part for _, part in parts))


def cache_bucket(needed: int) -> int:
    """The smallest of STEPS, 2 STEPS, 4 STEPS, ... slots that holds `needed`."""
    slots = STEPS
    while slots < needed:
        slots *= 2
    return slots


def _whole(size: int, over: int) -> int:
    """The next multiple of the parts that a batch is cut into."""
    return -(-size // over) * over


def _leave(size: int, over: int) -> int:
    """How few completions are alive when a batch of `size` is left for a quarter of it, about."""
    return _whole(size // SHRINK, over) if size >= SHRINK * max(SMALLEST, over) else 0


def _some(prompts: AnyPrompts, which: np.ndarray) -> AnyPrompts:
    return jax.tree.map(lambda x: x[which], prompts)


class SlotTable:
    """What the host knows: which completion sits where in the batch, and what has been drawn."""

    def __init__(self, count: int, group_size: int, limits: StopCriteria):
        shape = (count, group_size, limits.max_tokens)
        self.drawn = SampledTokens(np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, np.float32))
        self.stop_ids, self.left = limits.stop_ids, np.full(count, group_size)

    def assign_all(self, prompts: np.ndarray, real: np.ndarray) -> None:
        places, group_size = len(prompts), self.drawn.tokens.shape[1]
        self.prompt, self.member = prompts.copy(), np.tile(np.arange(group_size), (places, 1))
        self.begin, self.alive = np.zeros(places, int), np.repeat(real[:, None], group_size, axis=1)

    def assign_slots(self, places: np.ndarray, prompts: np.ndarray, real: np.ndarray, slot: int) -> None:
        self.prompt[places], self.begin[places], self.alive[places] = prompts, slot, real[:, None]

    def shrink(self, over: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Seats the living in a smaller batch of one completion a prompt: their places, members and who is real."""
        alive, size = np.argwhere(self.alive), _whole(self.alive.size // SHRINK, over)
        real = np.arange(size) < len(alive)
        prompts, members = np.pad(alive, ((0, size - len(alive)), (0, 0)), mode="edge").T
        self.member = self.member[prompts, members][:, None]
        self.prompt, self.begin, self.alive = (
            self.prompt[prompts],
            self.begin[prompts],
            real[:, None],
        )
        return prompts, members[:, None], self.alive

    def write(
        self,
        drawn: SampledTokens,
        alive: Bool[Array, "P G"],
        places: np.ndarray | None = None,
        since: int | None = None,
    ) -> np.ndarray:
        """Keeps what was drawn at `places`, after slot `since` or as first tokens; returns the prompts now done."""
        drawn, alive = gather_to_host((drawn, alive))
        places = np.arange(len(self.prompt)) if places is None else places
        ended = self.alive[places] & ~alive[places]
        for row, place in enumerate(places):
            for column in np.flatnonzero(self.alive[place]):
                where = self.prompt[place], self.member[place, column]
                length = int(drawn.mask[row, column].sum())
                start = 0 if since is None else since + 1 - int(self.begin[place])
                for kept, new in zip(self.drawn, drawn, strict=True):
                    kept[where][start : start + length] = new[row, column, :length]
        before = self.left.copy()
        np.subtract.at(self.left, np.repeat(self.prompt[places], ended.sum(axis=1)), 1)
        self.alive[places] &= alive[places]
        return np.flatnonzero((self.left == 0) & (before > 0))

    def rollouts(self, prompts: AnyPrompts, which: np.ndarray) -> Rollouts:
        tokens, mask, logps = (x[which] for x in self.drawn)
        last = np.take_along_axis(tokens, mask.sum(axis=-1, keepdims=True) - 1, axis=-1)[..., 0]
        return Rollouts(prompts, tokens, mask, logps, truncated=~np.isin(last, self.stop_ids))


# --- what moves on the device, beside `prefill_and_sample` and `decode_chunk` ---


def _insert_rows(
    params: Params,
    prompts: AnyPrompts,
    keys: Key[Array, "Q G"],
    most: Int[Array, "Q"],
    *,
    live: SamplerState,
    places,
    **how,
) -> tuple[SamplerState, SampledTokens]:
    new, first = prefill_and_sample(params, prompts, keys, most, slots=1, **how)
    return SamplerState(
        insert_rows(live.state, new.state, places),
        live.keys.at[places].set(keys),
        live.last.at[places].set(new.last),
        live.alive.at[places].set(new.alive),
        live.most.at[places].set(new.most),
    ), first


def _keep(tree: Any, mesh: Mesh | None) -> Any:
    """Rows of prompts over the mesh's rows; of keys and values, heads over `tensor` too. (Axes of size 1 are dropped
    from caches, but an axis that is cut is none.)"""
    if mesh is None:
        return tree
    rows = BATCH_AXES if num_batch_shards(mesh) > 1 else None

    def lies(x: Any) -> Any:
        if isinstance(x, KV):
            heads = "tensor" if mesh.shape["tensor"] > 1 else None
            return KV(*(constrain(y, mesh, *_axes(y.ndim, rows, heads)) for y in x))
        return constrain(x, mesh, rows) if x.ndim else constrain(x, mesh)

    return jax.tree.map(lies, tree, is_leaf=lambda x: isinstance(x, KV))


def _axes(ndim: int, rows: tuple[str, ...] | None, heads: str | None) -> list[Any]:
    axes = [None] * ndim
    if heads:
        axes[-3] = heads
    if rows:
        axes[0] = rows
    return axes


def _gather_rows(
    live: SamplerState, prompts: Int[Array, "Q"], members: Int[Array, "Q H"], real: Bool[Array, "Q H"]
) -> SamplerState:
    keys, last, alive, most = (x[prompts[:, None], members] for x in live[1:])
    return SamplerState(gather_rows(live.state, prompts, members, live.alive.shape[1]), keys, last, alive & real, most)


def _resize_cache(live: SamplerState, first: Int[Array, ""], *, slots: int) -> SamplerState:
    return live._replace(state=resize_cache(live.state, first, slots))

"""The sampler's host side: which completions run beside each other, so that a long one does not hold back the rest.

Any number of prompts share a fixed number of places. When enough of them are done, the next ones take their places;
when none is waiting and few completions are left, these go on alone in a smaller batch. The cache has room for the
oldest completion alive, not for the longest one allowed. None of this changes a text: a completion's randomness is its
own, and its place and its slots mean nothing to it.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from jaxreason.sampling.decoder import Decoder, join, resize, take
from jaxreason.sampling.draw import Sampling
from jaxreason.sampling.generate import Drawn, Limits, Live, advance, begin
from jaxreason.types import AnyPrompts, Params, Rollouts

STEPS = 64
"""Tokens between two looks at what is done, at most; also the smallest cache, which doubles from there."""
SHRINK = 4
"""A batch shrinks to a quarter, and a quarter of the places is filled at a time: few sizes, each compiled once."""
SMALLEST = 4
"""Completions below which a smaller batch is hardly faster: reading the weights is what takes the time."""


class Sampler:
    """`Sampler(...)(params, prompts, keys=keys)` is `generate` for any number of prompts, `rows` completions at a time.

    This is where the sampler's `jit` and donation stand. Calls return host arrays.
    """

    def __init__(
        self, decoder: Decoder, sampling: Sampling, *, max_tokens: int, stop_ids: tuple[int, ...], rows: int = 256
    ):
        self.rows, self.limits = rows, Limits(max_tokens, stop_ids)
        how = {"decoder": decoder, "sampling": sampling, "limits": self.limits}
        self.begin = jax.jit(partial(begin, **how), static_argnames="slots")
        self.join = jax.jit(partial(_join, **how), donate_argnames="live")
        self.advance = jax.jit(
            partial(advance, steps=min(STEPS, max(1, max_tokens - 1)), **how), donate_argnames="live"
        )
        self.take = jax.jit(_take)
        self.resize = jax.jit(_resize, static_argnames="slots")

    def __call__(
        self,
        params: Params,
        prompts: AnyPrompts,
        *,
        keys: Key[Array, "P G"],
        most: Int[np.ndarray, "P"] | None = None,
    ) -> Rollouts:
        """`most` are tokens at which each prompt's completions are cut, where that is sooner than `max_tokens`."""
        book = _Book(*keys.shape, self.limits)
        for _ in self._run(params, prompts, keys, book, most):
            pass
        return book.rollouts(prompts, np.arange(len(keys)))

    def stream(
        self, params: Params, prompts: AnyPrompts, *, keys: Key[Array, "P G"]
    ) -> Iterator[tuple[np.ndarray, Rollouts]]:
        """The same in parts: some places in `prompts` and their rollouts, as soon as all of these have ended."""
        book = _Book(*keys.shape, self.limits)
        for done in self._run(params, prompts, keys, book):
            if done.size:
                yield done, book.rollouts(_some(prompts, done), done)

    def _run(
        self,
        params: Params,
        prompts: AnyPrompts,
        keys: Key[Array, "P G"],
        book: "_Book",
        most: Int[np.ndarray, "P"] | None = None,
    ) -> Iterator[np.ndarray]:
        count, groups = keys.shape
        most = np.full(count, self.limits.max_tokens, np.int32) if most is None else most
        places = min(count, max(1, self.rows // groups))
        batch = max(1, places // SHRINK)
        waiting = np.arange(places, count)
        slots = _room(1)
        live, first = self.begin(params, _some(prompts, np.arange(places)), keys[:places], most[:places], slots=slots)
        book.seat_all(places)
        yield book.write(first, live.alive)
        while waiting.size or book.alive.any():
            while waiting.size and (free := np.flatnonzero(~book.alive.any(axis=1))).size >= batch:
                chosen, waiting = waiting[:batch], waiting[batch:]
                real = np.arange(batch) < chosen.size
                chosen = np.pad(chosen, (0, batch - chosen.size), mode="edge")  # one shape: what is not real is dead
                newcomers = _some(prompts, chosen), keys[chosen], most[chosen]
                live, first = self.join(params, *newcomers, real, live=live, places=free[:batch])
                book.seat(free[:batch], chosen, real, int(live.state.slot))
                yield book.write(first, live.alive, free[:batch])
            if not book.alive.any():
                continue
            while not waiting.size and book.alive.sum() <= _leave(book.alive.size):
                live = self.take(live, *book.shrink())
            slot = int(live.state.slot)
            if slot == slots:
                oldest = int(book.begin[book.alive.any(axis=1)].min())
                slots = _room(slot - oldest + STEPS // 2)
                live = self.resize(live, oldest, slots=slots)
                book.begin, slot = book.begin - oldest, slot - oldest
            above = (len(book.alive) - batch, 0) if waiting.size else (0, _leave(book.alive.size))
            live, drawn = self.advance(params, live=live, most=min(STEPS, slots - slot), above=above)
            yield book.write(drawn, live.alive, since=slot)


def join_parts(parts: Sequence[tuple[np.ndarray, Rollouts]]) -> Rollouts:
    """All that `stream` gave, in the order of the prompts."""
    order = np.argsort(np.concatenate([done for done, _ in parts]))
    return jax.tree.map(lambda *xs: np.concatenate(xs)[order], *(part for _, part in parts))


def _room(needed: int) -> int:
    """The smallest of STEPS, 2 STEPS, 4 STEPS, ... slots that holds `needed`."""
    slots = STEPS
    while slots < needed:
        slots *= 2
    return slots


def _leave(size: int) -> int:
    """How few completions are alive when a batch of `size` is left for a quarter of it."""
    return size // SHRINK if size >= SHRINK * SMALLEST else 0


def _some(prompts: AnyPrompts, which: np.ndarray) -> AnyPrompts:
    return jax.tree.map(lambda x: x[which], prompts)


class _Book:
    """What the host knows: which completion sits where in the batch, and what has been drawn."""

    def __init__(self, count: int, groups: int, limits: Limits):
        shape = (count, groups, limits.max_tokens)
        self.drawn = Drawn(np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, np.float32))
        self.stop_ids, self.left = limits.stop_ids, np.full(count, groups)

    def seat_all(self, places: int) -> None:
        groups = self.drawn.tokens.shape[1]
        self.prompt, self.member = np.arange(places), np.tile(np.arange(groups), (places, 1))
        self.begin, self.alive = np.zeros(places, int), np.ones((places, groups), bool)

    def seat(self, places: np.ndarray, prompts: np.ndarray, real: np.ndarray, slot: int) -> None:
        self.prompt[places], self.begin[places], self.alive[places] = prompts, slot, real[:, None]

    def shrink(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Seats the living in a smaller batch of one completion a prompt: their places, members and who is real."""
        alive, size = np.argwhere(self.alive), self.alive.size // SHRINK
        real = np.arange(size) < len(alive)
        prompts, members = np.pad(alive, ((0, size - len(alive)), (0, 0)), mode="edge").T
        self.member = self.member[prompts, members][:, None]
        self.prompt, self.begin, self.alive = self.prompt[prompts], self.begin[prompts], real[:, None]
        return prompts, members[:, None], self.alive

    def write(
        self, drawn: Drawn, alive: Bool[Array, "P G"], places: np.ndarray | None = None, since: int | None = None
    ) -> np.ndarray:
        """Keeps what was drawn at `places`, after slot `since` or as first tokens; returns the prompts now done."""
        drawn, alive = jax.device_get((drawn, alive))
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


# --- what moves on the device, beside `begin` and `advance` ---


def _join(
    params: Params,
    prompts: AnyPrompts,
    keys: Key[Array, "Q G"],
    most: Int[Array, "Q"],
    real: Bool[Array, "Q"],
    *,
    live: Live,
    places,
    **how,
) -> tuple[Live, Drawn]:
    new, first = begin(params, prompts, keys, most, slots=1, **how)
    return Live(
        join(live.state, new.state, places),
        live.keys.at[places].set(keys),
        live.last.at[places].set(new.last),
        live.alive.at[places].set(new.alive & real[:, None]),
        live.most.at[places].set(new.most),
    ), first


def _take(live: Live, prompts: Int[Array, "Q"], members: Int[Array, "Q H"], real: Bool[Array, "Q H"]) -> Live:
    keys, last, alive, most = (x[prompts[:, None], members] for x in live[1:])
    return Live(take(live.state, prompts, members, live.alive.shape[1]), keys, last, alive & real, most)


def _resize(live: Live, first: Int[Array, ""], *, slots: int) -> Live:
    return live._replace(state=resize(live.state, first, slots))

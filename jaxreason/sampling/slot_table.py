"""The planner of continuous batching: pure NumPy, decides what the sampler does next.

Prompts share a fixed number of batch slots. When enough slots are free, waiting prompts are admitted. When none is
waiting and few completions are left, these move to a smaller batch. The cache holds the oldest live completion, not the
longest allowed one. Sizes are few, so that programs are few.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxreason.sampling.generate import SampledTokens
from jaxreason.types import Prompts, Rollouts

STEPS = 64
"""Maximum tokens of one `Decode`; also the smallest cache."""
SHRINK = 4
"""The batch shrinks to a quarter; a quarter of the slots is filled at a time."""
SMALLEST = 4
"""Smallest batch worth shrinking to: below it a step's time goes into reading the weights."""


class Admit(NamedTuple):
    """Prefills `prompts` into `slots` and samples their first tokens."""

    slots: Int[np.ndarray, "Q"]
    prompts: Int[np.ndarray, "Q"]
    real: Bool[np.ndarray, "Q"]
    """False on copies that pad the batch; their limit is 0 tokens."""


class Decode(NamedTuple):
    """Decodes all slots, see `decode_chunk`."""

    max_steps: int
    min_alive: tuple[int, int]


class Shrink(NamedTuple):
    """Gathers live completions into a smaller batch of one completion per slot, see `gather_rows`."""

    slots: Int[np.ndarray, "Q"]
    members: Int[np.ndarray, "Q 1"]
    real: Bool[np.ndarray, "Q 1"]


class ResizeCache(NamedTuple):
    """Drops what precedes cache index `first`, see `resize_cache`."""

    first: int
    cache_size: int


Action = Admit | Decode | Shrink | ResizeCache


class SlotTable:
    """Which completion each batch slot holds, and all tokens sampled so far.

    For `count` prompts, `rows` completions at a time, in a batch that divides into `shards`.
    """

    def __init__(self, count: int, group_size: int, max_tokens: int, *, rows: int, shards: int = 1, steps: int = STEPS):
        shape = count, group_size, max_tokens
        self.sampled = SampledTokens(np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, np.float32))
        self.lengths, self.finished = np.zeros(shape[:2], int), np.zeros(shape[:2], bool)
        self.waiting, self.shards, self.steps = np.arange(count), shards, steps
        num_slots = _round_up(min(count, max(1, rows // group_size)), shards)
        self.admit_size = _round_up(max(1, num_slots // SHRINK), shards)
        self.prompt, self.member = np.zeros(num_slots, int), np.tile(np.arange(group_size), (num_slots, 1))
        self.begin, self.alive = np.zeros(num_slots, int), np.zeros((num_slots, group_size), bool)
        self.cache_index, self.cache_size = 0, steps

    def next_action(self) -> Action | None:
        """The next action; None once all completions have ended. Changes nothing."""
        free = np.flatnonzero(~self.alive.any(axis=1))
        size = self.admit_size if len(self.waiting) < len(self.lengths) else len(free)
        if self.waiting.size and len(free) >= size:
            prompts = self.waiting[:size]
            padded = np.pad(prompts, (0, size - len(prompts)), mode="edge")
            return Admit(free[:size], padded, np.arange(size) < len(prompts))
        alive, threshold = int(self.alive.sum()), _shrink_threshold(self.alive.size, self.shards)
        if not alive:
            return None
        if not self.waiting.size and alive <= threshold:
            slots, members = np.pad(np.argwhere(self.alive), ((0, threshold - alive), (0, 0)), mode="edge").T
            return Shrink(slots, members[:, None], np.arange(threshold)[:, None] < alive)
        if self.cache_index == self.cache_size:
            oldest = int(self.begin[self.alive.any(axis=1)].min())
            return ResizeCache(oldest, cache_bucket(self.cache_index - oldest + self.steps // 2, self.steps))
        min_alive = (len(self.alive) - self.admit_size, 0) if self.waiting.size else (0, threshold)
        return Decode(min(self.steps, self.cache_size - self.cache_index), min_alive)

    def assign_slots(self, action: Action) -> None:
        """Follows an action that is executed: what each slot holds, and the cache."""
        match action:
            case Admit(slots, prompts, real):
                self.prompt[slots], self.begin[slots], self.alive[slots] = prompts, self.cache_index, real[:, None]
                self.waiting = self.waiting[real.sum() :]
            case Shrink(slots, members, real):
                self.prompt, self.begin = self.prompt[slots], self.begin[slots]
                self.member, self.alive = self.member[slots[:, None], members], real
            case ResizeCache(first, cache_size):
                self.begin, self.cache_index, self.cache_size = self.begin - first, self.cache_index - first, cache_size

    def record(self, action: Action, sampled: SampledTokens, alive: Bool[np.ndarray, "P G"]) -> Int[np.ndarray, "N"]:
        """Stores the tokens of an action and which slots are `alive` after it; returns the prompts that finished."""
        slots = action.slots if isinstance(action, Admit) else np.arange(len(self.prompt))
        if isinstance(action, Decode):
            self.cache_index += int(sampled.mask.any(axis=(0, 1)).sum())
        active, ended = self.alive[slots], self.alive[slots] & ~alive[slots]
        prompt, member = np.broadcast_arrays(self.prompt[slots, None], self.member[slots])
        q, g, t = np.nonzero(sampled.mask & active[..., None])
        p, m = prompt[q, g], member[q, g]
        for stored, new in zip(self.sampled, sampled, strict=True):
            stored[p, m, self.lengths[p, m] + t] = new[q, g, t]
        self.lengths[prompt[active], member[active]] += sampled.mask.sum(axis=-1)[active]
        before = self.finished.all(axis=1)
        self.finished[prompt[ended], member[ended]] = True
        self.alive[slots] &= alive[slots]
        return np.flatnonzero(self.finished.all(axis=1) & ~before)

    def rollouts(self, which: Int[np.ndarray, "N"] | slice, prompts: Prompts, stop_ids: tuple[int, ...]) -> Rollouts:
        """Of the prompts `which`, given as `prompts`."""
        tokens, mask, logps = (x[which] for x in self.sampled)
        last = np.take_along_axis(tokens, self.lengths[which][..., None] - 1, axis=-1)[..., 0]
        return Rollouts(prompts, tokens, mask, logps, truncated=~np.isin(last, stop_ids))


def cache_bucket(needed: int, smallest: int = STEPS) -> int:
    """The first of `smallest`, 2 `smallest`, 4 `smallest`, ... that is at least `needed`."""
    size = smallest
    while size < needed:
        size *= 2
    return size


def _round_up(size: int, shards: int) -> int:
    return -(-size // shards) * shards


def _shrink_threshold(size: int, shards: int) -> int:
    """The size to which a batch of `size` completions shrinks once no more are alive; 0 if it stays."""
    return _round_up(size // SHRINK, shards) if size >= SHRINK * max(SMALLEST, shards) else 0

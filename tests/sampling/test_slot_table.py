"""The planner against a simulated device: completions of known lengths whose tokens name themselves."""

import numpy as np
import pytest

from jaxreason.sampling.generate import SampledTokens
from jaxreason.sampling.slot_table import Admit, Decode, ResizeCache, Shrink, SlotTable

STEPS = 4


def tokens_of(completions, counts):
    return (1000 * completions + counts).astype(np.int32)


def simulate(lengths, rows: int, shards: int):
    """Executes the actions for completions of `lengths` [P G]; returns the table, prompts in the order of admission and
    of completion, and (batch, cache size) of every decode."""
    (count, group_size), lengths_of = lengths.shape, lengths.ravel()
    table = SlotTable(count, group_size, int(lengths.max()), rows=rows, shards=shards, steps=STEPS)
    completions = np.zeros(table.alive.shape, int)  # p * G + g in each slot
    drawn, alive, begin = np.zeros_like(completions), np.zeros(completions.shape, bool), np.zeros(len(completions), int)
    index, size, admitted, finished, shapes = 0, STEPS, [], [], set()
    while action := table.next_action():
        sampled = None
        match action:
            case Admit(slots, prompts, real):
                assert len(slots) % shards == 0 and not alive[slots].any()
                admitted += prompts[real].tolist()
                completions[slots], begin[slots] = prompts[:, None] * group_size + np.arange(group_size), index
                new = completions[slots]
                drawn[slots], alive[slots] = 1, real[:, None] & (lengths_of[new] > 1)
                sampled = tokens_of(new, np.zeros_like(new))[..., None], np.ones((*new.shape, 1), bool)
            case Decode(max_steps, min_alive):
                sampled = np.zeros((*alive.shape, STEPS), np.int32), np.zeros((*alive.shape, STEPS), bool)
                begun = index
                for i in range(max_steps):
                    if alive.any(axis=1).sum() <= min_alive[0] or alive.sum() <= min_alive[1]:
                        break
                    assert index < size, "a token beyond the cache"
                    assert (begin[:, None] + drawn - 1 == index)[alive].all(), "a token at another's cache index"
                    sampled[0][..., i], sampled[1][..., i] = tokens_of(completions, drawn), alive
                    drawn, index = drawn + alive, index + 1
                    alive &= drawn < lengths_of[completions]
                assert index > begun, "no progress"
                shapes.add((alive.shape, size))
            case Shrink(slots, members, real):
                assert len(slots) % shards == 0 and 0 < len(slots) < alive.size
                completions, drawn, alive = (x[slots[:, None], members] for x in (completions, drawn, alive))
                begin, alive = begin[slots], alive & real
            case ResizeCache(first, cache_size):
                assert begin[alive.any(axis=1)].min() >= first, "tokens of a live completion are dropped"
                begin, index, size = begin - first, index - first, cache_size
        table.assign_slots(action)
        if sampled:
            logps = sampled[0].astype(np.float32)
            finished += table.record(action, SampledTokens(*sampled, logps), alive.copy()).tolist()
    return table, admitted, finished, shapes


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_every_prompt_is_admitted_once_and_every_completion_gets_its_tokens(shards):
    rng, shrunk = np.random.default_rng(shards), 0
    for _ in range(60):
        count, group_size, rows = rng.integers(1, 40), rng.integers(1, 5), rng.integers(1, 100)
        lengths = np.minimum(rng.geometric(1 / rng.integers(1, 30), (count, group_size)), 90)
        table, admitted, finished, shapes = simulate(lengths, int(rows), shards)
        assert admitted == list(range(count)) and sorted(finished) == list(range(count))
        t = np.arange(lengths.max())
        mask = t < lengths[..., None]
        expected = np.where(mask, tokens_of(np.arange(lengths.size).reshape(lengths.shape)[..., None], t), 0)
        np.testing.assert_array_equal(table.sampled.tokens, expected)
        np.testing.assert_array_equal(table.sampled.mask, mask)
        np.testing.assert_array_equal(table.sampled.logps, expected.astype(np.float32))
        # about 100 completions, a quarter of them, and a quarter of these; caches of 4, 8, ..., 128 tokens
        batches, caches = {batch for batch, _ in shapes}, {size for _, size in shapes}
        assert len(batches) <= 3 and caches <= {STEPS << i for i in range(6)}
        shrunk += len(batches) == 3
    assert shrunk

"""Completions that leave, join and move: the same texts as all of them side by side to the end."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models.transformer import Transformer
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, completion_keys, continuous_batching, generate
from jaxreason.types import Prompts
from tests.models.families import TINY, tiny_params

COUNT, GROUPS, WIDTH = 11, 2, 6


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(continuous_batching, "STEPS", 4)  # caches of 4, 8, 16 slots, so that all of them are met


def setting(name: str, max_tokens: int):
    """A decoder whose completions end anywhere from the first token to the limit."""
    cfg = TINY[name]
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, WIDTH + 1, COUNT)
    tokens = rng.integers(0, cfg.vocab, (COUNT, WIDTH)).astype(np.int32)
    prompts = Prompts(tokens, np.arange(WIDTH) < lengths[:, None])
    keys = completion_keys(jax.random.key(5), np.arange(COUNT), GROUPS)
    how = {"decoder": TransformerDecoder(Transformer(cfg)), "sampling": Sampling()}
    limits = {"max_tokens": max_tokens, "stop_ids": (1, 2, 3)}
    expected = jax.jit(partial(generate, **how, **limits))(tiny_params(cfg, 7), prompts, keys=keys)
    return tiny_params(cfg, 7), prompts, keys, how, limits, expected


def assert_equal(ours, expected):
    for name in ("tokens", "mask", "truncated"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), name)
    np.testing.assert_allclose(ours.logps, expected.logps, atol=1e-5)


# one prompt at a time; four, with others waiting; eight, of which two change at a time and once only one; all at once
@pytest.mark.parametrize(("name", "rows"), [("llama", 2), ("gemma3", 8), ("llama", 16), ("llama", 100)])
def test_any_schedule_gives_the_same_texts(name, rows):
    params, prompts, keys, how, limits, expected = setting(name, max_tokens=25)
    lengths = np.asarray(expected.lengths)
    assert lengths.min() == 1 and lengths.max() == 25 and expected.truncated.any()
    sampler = Sampler(**how, **limits, rows=rows)
    assert_equal(sampler(params, prompts, keys=keys), expected)
    parts = list(sampler.stream(params, prompts, keys=keys))
    assert len(parts) > 1
    for which, rollouts in parts:
        assert_equal(rollouts, jax.tree.map(lambda x, w=which: x[w], expected))
    assert_equal(continuous_batching.concat_in_order(parts), expected)


def test_a_limit_of_its_own_cuts_a_prompts_completions():
    params, prompts, keys, how, limits, expected = setting("llama", max_tokens=25)
    most = np.arange(1, COUNT + 1)
    cut = Sampler(**how, **limits, rows=8)(params, prompts, keys=keys, most=most)
    for prompt, limit in enumerate(most):
        lengths = np.minimum(expected.lengths[prompt], limit)
        np.testing.assert_array_equal(cut.lengths[prompt], lengths)
        np.testing.assert_array_equal(cut.tokens[prompt], np.where(cut.mask, expected.tokens, 0)[prompt])
        np.testing.assert_array_equal(
            cut.truncated[prompt], (expected.lengths > limit)[prompt] | expected.truncated[prompt]
        )


@pytest.mark.parametrize("max_tokens", [1, 2])
def test_the_shortest_completions(max_tokens):
    params, prompts, keys, how, limits, expected = setting("llama", max_tokens)
    assert_equal(Sampler(**how, **limits, rows=8)(params, prompts, keys=keys), expected)


def test_the_long_ones_go_on_alone():
    """The batch of 22 shrinks to 5, and decodes far fewer rows than 22 to the end."""
    params, prompts, keys, how, limits, expected = setting("llama", max_tokens=60)
    sampler, decoded = Sampler(**how, **limits, rows=100), []
    inner = sampler.decode_chunk

    def decode_chunk(params, **kwargs):
        before = int(kwargs["live"].state.slot)
        live, drawn = inner(params, **kwargs)
        decoded.append(live.alive.size * (int(live.state.slot) - before))
        return live, drawn

    sampler.decode_chunk = decode_chunk
    assert_equal(sampler(params, prompts, keys=keys), expected)
    assert (
        jnp.sum(expected.lengths) - COUNT * GROUPS
        <= sum(decoded)
        < 0.6 * COUNT * GROUPS * (int(expected.lengths.max()) - 1)
    )

"""Continuous batching: the same samples as all completions side by side to the end."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models.transformer import Transformer
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, completion_keys, continuous_batching, generate
from jaxreason.types import Prompts
from tests.models.families import TINY, tiny_params

COUNT, GROUP_SIZE, WIDTH = 11, 2, 6


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(continuous_batching, "STEPS", 4)  # caches of 4, 8 and 16 tokens, so that all of them are met


def setting(name: str, max_tokens: int):
    """A sampler whose completions end anywhere from the first token to the limit, and what it must return."""
    cfg, rng = TINY[name], np.random.default_rng(0)
    lengths = rng.integers(1, WIDTH + 1, COUNT)
    tokens = rng.integers(0, cfg.vocab, (COUNT, WIDTH)).astype(np.int32)
    prompts = Prompts(tokens, np.arange(WIDTH) < lengths[:, None])
    keys = completion_keys(jax.random.key(5), np.arange(COUNT), GROUP_SIZE)
    decoder, stop_ids = TransformerDecoder(Transformer(cfg)), (1, 2, 3)
    whole = partial(generate, decoder=decoder, sampling=Sampling(), max_tokens=max_tokens, stop_ids=stop_ids)
    expected = jax.jit(whole)(tiny_params(cfg, 7), prompts, keys=keys)
    sampler = partial(Sampler, decoder, Sampling(), max_tokens, stop_ids)
    return tiny_params(cfg, 7), prompts, keys, sampler, expected


def assert_equal(ours, expected):
    for name in ("tokens", "mask", "truncated"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), name)
    np.testing.assert_allclose(ours.logps, expected.logps, atol=1e-5)


SLOW = [pytest.param("llama", 2, marks=pytest.mark.slow), pytest.param("gemma3", 8, marks=pytest.mark.slow)]


# all at once; eight, of which two change at a time and once only one; one prompt at a time; four, with others waiting
@pytest.mark.parametrize(("name", "rows"), [("llama", 100), ("llama", 16), *SLOW])
def test_any_schedule_gives_the_same_samples(name, rows):
    params, prompts, keys, sampler, expected = setting(name, max_tokens=25)
    lengths = np.asarray(expected.lengths)
    assert lengths.min() == 1 and lengths.max() == 25 and expected.truncated.any()
    assert_equal(sampler(rows=rows)(params, prompts, keys=keys), expected)
    parts = list(sampler(rows=rows).stream(params, prompts, keys=keys))
    assert len(parts) > 1
    for indices, rollouts in parts:
        assert_equal(rollouts, jax.tree.map(lambda x, i=indices: x[i], expected))
    assert_equal(continuous_batching.concat_in_order(parts), expected)


def test_row_limits_end_the_completions_of_a_prompt():
    params, prompts, keys, sampler, expected = setting("llama", max_tokens=25)
    row_limits = np.arange(1, COUNT + 1)
    cut = sampler(rows=8)(params, prompts, keys=keys, row_limits=row_limits)
    for prompt, limit in enumerate(row_limits):
        lengths = np.minimum(expected.lengths[prompt], limit)
        np.testing.assert_array_equal(cut.lengths[prompt], lengths)
        np.testing.assert_array_equal(cut.tokens[prompt], np.where(cut.mask, expected.tokens, 0)[prompt])
        np.testing.assert_array_equal(
            cut.truncated[prompt], (expected.lengths > limit)[prompt] | expected.truncated[prompt]
        )


@pytest.mark.parametrize("max_tokens", [1, 2])
def test_the_shortest_completions(max_tokens):
    params, prompts, keys, sampler, expected = setting("llama", max_tokens)
    assert_equal(sampler(rows=8)(params, prompts, keys=keys), expected)


def test_long_completions_continue_in_a_smaller_batch(monkeypatch):
    """The batch of 22 shrinks to 5, and decodes far fewer rows than 22 to the end."""
    params, prompts, keys, sampler, expected = setting("llama", max_tokens=60)
    decode, decoded = continuous_batching.decode, []

    def counted(params, live, *args, **kwargs):
        before = int(live.state.slot)
        live, sampled = decode(params, live, *args, **kwargs)
        decoded.append(live.alive.size * (int(live.state.slot) - before))
        return live, sampled

    monkeypatch.setattr(continuous_batching, "decode", counted)
    assert_equal(sampler(rows=100)(params, prompts, keys=keys), expected)
    needed, side_by_side = jnp.sum(expected.lengths) - COUNT * GROUP_SIZE, COUNT * GROUP_SIZE * 59
    assert needed <= sum(decoded) < 0.6 * side_by_side


def test_equal_samplers_compile_once(monkeypatch):
    params, prompts, keys, _, expected = setting("llama", max_tokens=25)
    traces = []

    @dataclass(frozen=True)
    class Traced(TransformerDecoder):
        def prefill(self, *args):
            traces.append("prefill")
            return super().prefill(*args)

        def decode(self, *args):
            traces.append("decode")
            return super().decode(*args)

    def sampler() -> Sampler:
        return Sampler(Traced(Transformer(TINY["llama"])), Sampling(), max_tokens=25, stop_ids=(1, 2, 3), rows=16)

    assert_equal(sampler()(params, prompts, keys=keys), expected)
    assert {*traces} == {"prefill", "decode"} and sampler() is not sampler()
    traces.clear()
    assert_equal(sampler()(tiny_params(TINY["llama"], 7), prompts, keys=keys), expected)
    assert not traces
    monkeypatch.setattr(continuous_batching, "STEPS", 8)
    assert_equal(sampler()(params, prompts, keys=keys), expected)
    assert traces

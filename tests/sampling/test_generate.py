"""The sampler with decoders of known behaviour, and its agreement with teacher forcing."""

import re
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models.scoring import score_completions
from jaxreason.models.transformer import Transformer
from jaxreason.sampling.decoder import TransformerDecoder, init_decode_state
from jaxreason.sampling.draw import GREEDY, Sampling
from jaxreason.sampling.generate import StopCriteria, completion_keys, decode_chunk, generate, prefill_and_sample
from jaxreason.types import Prompts
from tests.models.families import TINY, tiny_batch, tiny_params

CHAIN = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.3, 0.3, 0.4]])


@dataclass(frozen=True)
class Markov:
    """A Markov chain over three tokens that starts from token 0."""

    def prefill(self, params, prompts, group_size, cache_size):
        P = prompts.tokens.shape[0]
        return jnp.broadcast_to(params[0], (P, params.shape[1])), init_decode_state((), (), P)

    def decode(self, params, tokens, state):
        return params[tokens], state._replace(slot=state.slot + 1)


@dataclass(frozen=True)
class Counter:
    """Continues a prompt's first token n with n + 1, n + 2, ..., with certainty."""

    def prefill(self, params, prompts, group_size, cache_size):
        first = prompts.tokens[:, 0] + 1
        return 50 * jax.nn.one_hot(first, 10), init_decode_state((), (), len(first))

    def decode(self, params, tokens, state):
        return 50 * jax.nn.one_hot(tokens + 1, 10), state._replace(slot=state.slot + 1)


def run(decoder, params, prompts, group_size, *, seed=0, **kwargs):
    P = prompts.tokens.shape[0]
    settings = {"max_tokens": 6, "stop_ids": (), "sampling": Sampling()} | kwargs
    keys = completion_keys(jax.random.key(seed), jnp.arange(P), group_size)
    return jax.jit(partial(generate, decoder=decoder, **settings))(params, prompts, keys=keys)


def prompts_of(*first: int) -> Prompts:
    return Prompts(jnp.array(first)[:, None], jnp.ones((len(first), 1), bool))


def test_stop_token_belongs_to_the_completion_and_nothing_after_it():
    rollouts = run(Counter(), (), prompts_of(0, 3, 4, 8), 2, stop_ids=(5, 9))
    expected = [[1, 2, 3, 4, 5, 0], [4, 5, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(rollouts.tokens[:, 0], expected)
    np.testing.assert_array_equal(rollouts.lengths[:, 1], [5, 2, 1, 1])  # also when it is the very first token
    np.testing.assert_array_equal(rollouts.mask.sum(-1), rollouts.lengths)
    assert not rollouts.truncated.any()


def test_the_length_limit_is_reported_as_truncation():
    rollouts = run(Counter(), (), prompts_of(0, 3), 1, stop_ids=(5,), max_tokens=3)
    np.testing.assert_array_equal(rollouts.truncated[:, 0], [True, False])
    np.testing.assert_array_equal(rollouts.lengths[:, 0], [3, 2])


def test_a_stop_token_on_the_last_slot_is_an_end_not_a_cut():
    rollouts = run(Counter(), (), prompts_of(0), 1, stop_ids=(3,), max_tokens=3)
    assert not rollouts.truncated.any() and rollouts.lengths[0, 0] == 3


def test_the_loop_ends_when_every_row_has_ended():
    calls = []

    @dataclass(frozen=True)
    class Spy(Counter):
        def decode(self, params, tokens, state):
            jax.debug.callback(lambda: calls.append(1))
            return super().decode(params, tokens, state)

    jax.block_until_ready(run(Spy(), (), prompts_of(0, 2), 1, stop_ids=(4,), max_tokens=100))
    jax.effects_barrier()
    assert len(calls) == 3  # four tokens for the longest row, the first of them from the prefill


def test_frequencies_of_whole_sequences_match_the_chain():
    """Chi-squared of the 27 length-3 sequences over 20,000 rows; the 99.9 % point of 26 degrees of freedom is 54.1."""
    rollouts = run(Markov(), jnp.log(jnp.array(CHAIN, jnp.float32)), prompts_of(*[0] * 50), 400, max_tokens=3)
    sequences = np.asarray(rollouts.tokens).reshape(-1, 3)
    counts = np.bincount(sequences @ [9, 3, 1], minlength=27)
    expected = np.array([CHAIN[0, a] * CHAIN[a, b] * CHAIN[b, c] for a in range(3) for b in range(3) for c in range(3)])
    assert ((counts - 20_000 * expected) ** 2 / (20_000 * expected)).sum() < 54.1
    np.testing.assert_allclose(rollouts.logps.sum(-1).reshape(-1), np.log(expected)[sequences @ [9, 3, 1]], atol=1e-5)


SAMPLINGS = [Sampling(0.6), Sampling(1.7, top_k=4), Sampling(1.0, top_p=0.8), Sampling(0.9, min_p=0.1), GREEDY]


@pytest.mark.parametrize(
    ("name", "sampling"), [("llama", Sampling()), ("gemma3", Sampling()), *(("qwen3", s) for s in SAMPLINGS)], ids=str
)
def test_sampler_log_probabilities_equal_teacher_forcing(name, sampling):
    model, params = Transformer(TINY[name]), tiny_params(TINY[name], seed=2)
    prompts, _ = tiny_batch(TINY[name], seed=2)
    rollouts = run(TransformerDecoder(model), params, prompts, 3, max_tokens=9, stop_ids=(7,), sampling=sampling)
    score = jax.jit(partial(score_completions, model=model, temperature=sampling.temperature or 1.0))
    scores = score(params, prompts, rollouts.tokens, rollouts.mask)
    np.testing.assert_allclose(rollouts.logps, scores.logps, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_rows_text_does_not_depend_on_its_neighbours(name):
    model, params = Transformer(TINY[name]), tiny_params(TINY[name], seed=3)
    prompts, _ = tiny_batch(TINY[name], seed=3)
    decoder = partial(generate, decoder=TransformerDecoder(model), max_tokens=8, stop_ids=(4,), sampling=Sampling())
    decoder = jax.jit(decoder)
    keys = completion_keys(jax.random.key(1), jnp.array([17, 4]), 3)
    together = decoder(params, prompts, keys=keys)
    alone = decoder(params, Prompts(prompts.tokens[1:, :4], prompts.mask[1:, :4]), keys=keys[1:, 2:])
    np.testing.assert_array_equal(alone.tokens[0, 0], together.tokens[1, 2])
    swapped = completion_keys(jax.random.key(1), jnp.array([4, 17]), 3)
    assert (jax.random.key_data(swapped[0]) == jax.random.key_data(keys[1])).all()


def test_new_parameters_change_the_samples_and_nothing_is_traced_again():
    cfg = TINY["llama"]
    prompts, _ = tiny_batch(cfg, seed=1)
    keys = completion_keys(jax.random.key(0), jnp.arange(2), 2)
    traced = chex.assert_max_traces(generate, n=1)
    sample = jax.jit(
        partial(traced, decoder=TransformerDecoder(Transformer(cfg)), max_tokens=8, stop_ids=(), sampling=Sampling())
    )
    first, again, other = (sample(tiny_params(cfg, seed), prompts, keys=keys) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert (first.tokens != other.tokens).any()
    shuffled = Prompts(prompts.tokens[:, ::-1], prompts.mask)
    sample(tiny_params(cfg, 3), shuffled, keys=completion_keys(jax.random.key(9), jnp.arange(2), 2))  # same shapes


@pytest.mark.parametrize("P, G, K", [(1, 1, 2), (1, 4, 2), (4, 1, 2), (2, 4, 1), (2, 4, 2)])
def test_a_decode_step_copies_no_cache(P, G, K):
    """A cache in another layout than the products read would be copied every step."""
    cfg, cache_size = replace(TINY["llama"], heads=4, kv_heads=K), 61
    settings = {
        "decoder": TransformerDecoder(Transformer(cfg)),
        "sampling": Sampling(),
        "limits": StopCriteria(cache_size, ()),
    }
    prompts = Prompts(jnp.zeros((P, 11), jnp.int32), jnp.ones((P, 11), bool))
    keys = completion_keys(jax.random.key(0), jnp.arange(P), G)
    prefill = partial(prefill_and_sample, cache_size=cache_size, **settings)
    live, _ = jax.eval_shape(prefill, tiny_params(cfg, seed=0), prompts, keys, np.full(P, cache_size))
    step = jax.jit(partial(decode_chunk, steps=cache_size, max_steps=cache_size, **settings), donate_argnames="live")
    program = step.lower(tiny_params(cfg, seed=0), live=live).compile().as_text()
    copies = re.findall(r"= f32\[([\d,]+)\]\S* (?:copy|transpose)\(", program)
    assert P * G * K * cfg.head_dim * cache_size not in [prod(map(int, shape.split(","))) for shape in copies]

"""Three models as one: what must not change, when guidance begins, and the formula from uncached forward passes."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.errors import InputError
from jaxreason.models.transformer import Transformer, run_completions, run_prompts, unembed
from jaxreason.sampling.continuous_batching import Sampler
from jaxreason.sampling.decoder import TransformerDecoder, init_decode_state
from jaxreason.sampling.draw import GREEDY, Sampling
from jaxreason.sampling.generate import completion_keys, generate
from jaxreason.sampling.logit_arithmetic import (
    GuidedDecoder,
    GuidedParams,
    Translation,
    logit_delta,
    trace_guidance,
    translation,
)
from jaxreason.types import GuidedPrompts, Prompts
from tests.models.families import TINY, tiny_batch, tiny_params

LARGE, SMALL = TINY["gemma3"], TINY["llama"]
TARGET, GUIDE, BASE = tiny_params(LARGE, seed=1), tiny_params(SMALL, seed=2), tiny_params(SMALL, seed=3)
PROMPTS, _ = tiny_batch(LARGE, seed=4)
KEYS = completion_keys(jax.random.key(0), jnp.arange(2), group_size=3)
HOW = {"max_tokens": 8, "stop_ids": (), "sampling": Sampling(temperature=0.7)}


def decoder(large=LARGE, small=SMALL, **how) -> GuidedDecoder:
    target, guide, base = (TransformerDecoder(Transformer(cfg)) for cfg in (large, small, small))
    return GuidedDecoder(target, guide, base, **how)


def sampled(decoder, params, prompts=PROMPTS, **how):
    return jax.jit(partial(generate, decoder=decoder, **HOW | how))(params, prompts, keys=KEYS)


def test_no_guidance_is_the_target_and_all_of_it_the_guide():
    alone = sampled(TransformerDecoder(Transformer(LARGE)), TARGET).tokens
    guide = sampled(TransformerDecoder(Transformer(SMALL)), GUIDE).tokens
    cases = [
        (decoder(alpha=0.0, warmup=0), GuidedParams(TARGET, GUIDE, BASE), alone),
        (decoder(warmup=8), GuidedParams(TARGET, GUIDE, BASE), alone),
        (decoder(alpha=3.0, warmup=0), GuidedParams(TARGET, GUIDE, GUIDE), alone),
        (decoder(SMALL, warmup=0), GuidedParams(BASE, GUIDE, BASE), guide),
    ]
    for made, params, expected in cases:
        np.testing.assert_array_equal(sampled(made, params).tokens, expected)
    guided = sampled(decoder(warmup=0), GuidedParams(TARGET, GUIDE, BASE)).tokens
    assert (guided != alone).any() and (guided != guide).any()


@dataclass(frozen=True)
class Always:
    """Has the same opinion all the time."""

    def prefill(self, params, prompts, group_size, slots):
        P = len(prompts.tokens)
        return jnp.broadcast_to(params, (P, *params.shape)), init_decode_state((), (), P)

    def decode(self, params, tokens, state):
        return jnp.broadcast_to(params, (*tokens.shape, *params.shape)), state._replace(slot=state.slot + 1)


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_guidance_begins_at_exactly_token_w(warmup):
    params = GuidedParams(jnp.array([4.0, 0.0, 0.0]), jnp.array([0.0, 9.0, 0.0]), jnp.array([0.0, 4.0, 0.0]))
    made = GuidedDecoder(Always(), Always(), Always(), warmup=warmup)
    rollouts = sampled(made, params, sampling=GREEDY, max_tokens=5)
    np.testing.assert_array_equal(rollouts.tokens[0, 0], [0] * warmup + [1] * (5 - warmup))
    expected = [[4.0, 0.0, 0.0]] * warmup + [[4.0, 5.0, 0.0]] * (5 - warmup)
    chosen = jax.nn.log_softmax(jnp.array(expected), axis=-1)[jnp.arange(5), rollouts.tokens[0, 0]]
    np.testing.assert_allclose(rollouts.logps[1, 2], chosen, atol=1e-6)


def test_a_translation_is_into_the_guides_vocabulary():
    np.testing.assert_array_equal(translation([2, -1, 0], 1, 3).ids, [2, -1, 0])
    for ids, unknown, complaint in (
        ([0, 3], 0, "token 1 to 3"),
        ([-2], 0, "token 0 to -2"),
        ([0], 3, "unknown ones to 3"),
    ):
        with pytest.raises(InputError, match=f"{complaint}, but the guides know 3 tokens"):
            translation(ids, unknown, 3)


def test_what_the_guides_do_not_know_keeps_the_targets_logits():
    guide, base = jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[0.5, 0.0, 1.0, 7.0]])
    np.testing.assert_array_equal(
        logit_delta(guide, base, 5), [[0.5, 2.0, 2.0, 0.0, 0.0]]
    )  # their vocabularies are padded
    np.testing.assert_array_equal(logit_delta(guide, base, 2), [[0.5, 2.0]])
    translation = Translation(jnp.array([2, -1, 0, 0, 3, 9]), jnp.int32(1))  # several may mean the same
    np.testing.assert_array_equal(logit_delta(guide, base, 6, translation), [[2.0, 0.0, 0.5, 0.5, 0.0, 0.0]])


def logits(cfg, params, prompts, tokens):
    """[P G T V] of whole completions, without a cache."""
    model = Transformer(cfg)
    hidden, context = run_prompts(params, prompts, model=model)
    last = hidden[jnp.arange(len(hidden)), context.lengths - 1][:, None, None]
    rest = run_completions(params, tokens[..., :-1], context, model=model)
    return unembed(params, jnp.concatenate([jnp.broadcast_to(last, rest[:, :, :1].shape), rest], axis=2), model=model)


def test_fused_logits_are_those_of_three_uncached_forward_passes():
    """With guides of another vocabulary, which read the prompts in their own words."""
    small = replace(SMALL, vocab=20)
    guide, base = tiny_params(small, seed=5), tiny_params(small, seed=6)
    ids = np.random.default_rng(0).permutation(np.concatenate([np.arange(20), np.full(10, -1)]))
    translation = Translation(jnp.array(ids, jnp.int32), jnp.int32(7))
    theirs = Prompts(PROMPTS.tokens[:, :6] % 20, jnp.arange(6) < jnp.array([[5], [6]]))
    params = GuidedParams(TARGET, guide, base, translation)
    rollouts = sampled(decoder(small=small, alpha=1.5, warmup=2), params, GuidedPrompts(*PROMPTS, theirs))
    read = jnp.array(np.where(ids >= 0, ids, 7))[rollouts.tokens]
    difference = logits(small, guide, theirs, read) - logits(small, base, theirs, read)
    moved = jnp.where(ids >= 0, difference[..., jnp.array(np.maximum(ids, 0))], 0.0)
    moved = jnp.where(jnp.arange(8)[:, None] < 2, 0.0, 1.5 * moved)
    alone = logits(LARGE, TARGET, PROMPTS, rollouts.tokens)
    expected = jax.nn.log_softmax((alone + moved) / 0.7)
    chosen = jnp.take_along_axis(expected, rollouts.tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(rollouts.logps, chosen, atol=1e-4)
    made = decoder(small=small, alpha=1.5, warmup=2)
    seen = trace_guidance(params, rollouts, keys=KEYS, decoder=made, sampling=GREEDY)
    np.testing.assert_array_equal(seen.alone, alone.argmax(axis=-1))
    np.testing.assert_allclose(seen.norm, moved.std(axis=-1) * moved.shape[-1] ** 0.5, atol=1e-4)
    assert not seen.norm[..., :2].any() and seen.norm[..., 2:].all()


def test_a_guided_text_does_not_depend_on_its_neighbours():
    made, params = decoder(warmup=2), GuidedParams(TARGET, GUIDE, BASE)
    prompts = jax.tree.map(lambda x: jnp.tile(x, (3, 1)), PROMPTS)
    keys = completion_keys(jax.random.key(1), jnp.arange(6), group_size=2)
    how = HOW | {"stop_ids": (0, 1, 2, 3, 4)}
    together = jax.jit(partial(generate, decoder=made, **how))(params, prompts, keys=keys)
    apart = Sampler(made, how["sampling"], max_tokens=8, stop_ids=how["stop_ids"], rows=4)(params, prompts, keys=keys)
    np.testing.assert_array_equal(apart.tokens, together.tokens)
    assert len(set(np.asarray(together.lengths).ravel().tolist())) > 2

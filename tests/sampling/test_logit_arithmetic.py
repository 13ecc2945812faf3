"""Three models as one: where the samples must not change, when guidance begins, the formula, and meshes."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.distributed.mesh import make_mesh
from jaxreason.models.partition import partition_rules, shard_params
from jaxreason.models.transformer import Transformer, run_completions, run_prompts, unembed
from jaxreason.sampling.continuous_batching import Sampler
from jaxreason.sampling.decoder import TransformerDecoder, init_decode_state
from jaxreason.sampling.draw import GREEDY, Sampling
from jaxreason.sampling.generate import completion_keys, generate
from jaxreason.sampling.logit_arithmetic import GuidedDecoder, GuidedParams, logit_delta, trace_guidance
from jaxreason.types import Prompts, TokenMap
from tests.models.families import TINY, tiny_batch, tiny_params

LARGE, SMALL = TINY["gemma3"], TINY["llama"]
TARGET, GUIDE, BASE = tiny_params(LARGE, seed=1), tiny_params(SMALL, seed=2), tiny_params(SMALL, seed=3)
PROMPTS, _ = tiny_batch(LARGE, seed=4)
KEYS = completion_keys(jax.random.key(0), jnp.arange(2), group_size=3)


def make_decoder(large=LARGE, small=SMALL, mesh=None, alpha=1.0, warmup=0) -> GuidedDecoder:
    target, guide, base = (TransformerDecoder(Transformer(cfg, mesh=mesh)) for cfg in (large, small, small))
    return GuidedDecoder(target, guide, base, alpha, warmup)


def sample(decoder, params, prompts=PROMPTS, keys=KEYS, sampling=Sampling(0.7), max_tokens=8, stop_ids=()):  # noqa: B008
    run = partial(generate, decoder=decoder, sampling=sampling, max_tokens=max_tokens, stop_ids=stop_ids)
    return jax.jit(run)(params, prompts, keys=keys)


@pytest.mark.slow
def test_no_guidance_is_the_target_and_nothing_else_the_guide():
    alone = sample(TransformerDecoder(Transformer(LARGE)), TARGET).tokens
    guide = sample(TransformerDecoder(Transformer(SMALL)), GUIDE).tokens
    cases = [
        (make_decoder(alpha=0.0), GuidedParams(TARGET, GUIDE, BASE), alone),
        (make_decoder(warmup=8), GuidedParams(TARGET, GUIDE, BASE), alone),
        (make_decoder(alpha=3.0), GuidedParams(TARGET, GUIDE, GUIDE), alone),
        (make_decoder(SMALL), GuidedParams(BASE, GUIDE, BASE), guide),
    ]
    for decoder, params, expected in cases:
        np.testing.assert_array_equal(sample(decoder, params).tokens, expected)
    guided = sample(make_decoder(), GuidedParams(TARGET, GUIDE, BASE)).tokens
    assert (guided != alone).any() and (guided != guide).any()


@dataclass(frozen=True)
class Always:
    """Returns its parameters as logits."""

    def prefill(self, params, prompts, group_size, cache_size):
        P = len(prompts.tokens)
        return jnp.broadcast_to(params, (P, *params.shape)), init_decode_state((), (), P)

    def decode(self, params, tokens, state):
        return jnp.broadcast_to(params, (*tokens.shape, *params.shape)), state._replace(slot=state.slot + 1)


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_guidance_begins_at_exactly_token_w(warmup):
    params = GuidedParams(jnp.array([4.0, 0.0, 0.0]), jnp.array([0.0, 9.0, 0.0]), jnp.array([0.0, 4.0, 0.0]))
    decoder = GuidedDecoder(Always(), Always(), Always(), warmup=warmup)
    rollouts = sample(decoder, params, sampling=GREEDY, max_tokens=5)
    np.testing.assert_array_equal(rollouts.tokens[0, 0], [0] * warmup + [1] * (5 - warmup))
    expected = [[4.0, 0.0, 0.0]] * warmup + [[4.0, 5.0, 0.0]] * (5 - warmup)
    chosen = jax.nn.log_softmax(jnp.array(expected), axis=-1)[jnp.arange(5), rollouts.tokens[0, 0]]
    np.testing.assert_allclose(rollouts.logps[1, 2], chosen, atol=1e-6)


def test_tokens_without_a_guide_token_keep_the_targets_logits():
    guide, base = jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[0.5, 0.0, 1.0, 7.0]])
    np.testing.assert_array_equal(logit_delta(guide, base, 5), [[0.5, 2.0, 2.0, 0.0, 0.0]])  # embeddings are padded
    np.testing.assert_array_equal(logit_delta(guide, base, 2), [[0.5, 2.0]])
    token_map = TokenMap(jnp.array([2, -1, 0, 0, 3, 9]), jnp.int32(1))  # two tokens map to the same
    np.testing.assert_array_equal(logit_delta(guide, base, 6, token_map), [[2.0, 0.0, 0.5, 0.5, 0.0, 0.0]])


def logits(cfg, params, prompts, tokens):
    """[P G T V] of whole completions, without a cache."""
    model = Transformer(cfg)
    hidden, context = run_prompts(params, prompts, model=model)
    last = hidden[jnp.arange(len(hidden)), context.lengths - 1][:, None, None]
    rest = run_completions(params, tokens[..., :-1], context, model=model)
    return unembed(params, jnp.concatenate([jnp.broadcast_to(last, rest[:, :, :1].shape), rest], axis=2), model=model)


@pytest.mark.slow
def test_fused_logits_are_those_of_three_uncached_forward_passes():
    """With guides of another vocabulary and their own prompts."""
    small = replace(SMALL, vocab=20)
    guide, base = tiny_params(small, seed=5), tiny_params(small, seed=6)
    ids = np.random.default_rng(0).permutation(np.concatenate([np.arange(20), np.full(10, -1)]))
    guide_prompts = Prompts(PROMPTS.tokens[:, :6] % 20, jnp.array(np.arange(6) < np.array([[5], [6]])))
    params = GuidedParams(TARGET, guide, base, TokenMap(jnp.array(ids, jnp.int32), jnp.int32(7)))
    decoder = make_decoder(small=small, alpha=1.5, warmup=2)
    rollouts = sample(decoder, params, PROMPTS._replace(guide=guide_prompts))
    mapped = jnp.array(np.where(ids >= 0, ids, 7))[rollouts.tokens]
    difference = logits(small, guide, guide_prompts, mapped) - logits(small, base, guide_prompts, mapped)
    delta = np.where(ids >= 0, np.asarray(difference)[..., np.maximum(ids, 0)], 0.0)
    delta = np.where(np.arange(8)[:, None] < 2, 0.0, 1.5 * delta)
    alone = logits(LARGE, TARGET, PROMPTS, rollouts.tokens)
    expected = jax.nn.log_softmax((alone + delta) / 0.7)
    chosen = jnp.take_along_axis(expected, rollouts.tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(rollouts.logps, chosen, atol=1e-4)
    trace = trace_guidance(params, rollouts, keys=KEYS, decoder=decoder, sampling=GREEDY)
    np.testing.assert_array_equal(trace.alone, alone.argmax(axis=-1))
    np.testing.assert_allclose(trace.norm, delta.std(axis=-1) * delta.shape[-1] ** 0.5, atol=1e-4)
    assert not trace.norm[..., :2].any() and trace.norm[..., 2:].all()


def test_guided_samples_do_not_depend_on_the_batch():
    decoder, params = make_decoder(warmup=2), GuidedParams(TARGET, GUIDE, BASE)
    prompts = jax.tree.map(lambda x: jnp.tile(x, (3, 1)), PROMPTS)
    keys = completion_keys(jax.random.key(1), jnp.arange(6), group_size=2)
    together = sample(decoder, params, prompts, keys, stop_ids=(0, 1, 2, 3, 4))
    sampler = Sampler(decoder, Sampling(0.7), max_tokens=8, stop_ids=(0, 1, 2, 3, 4), rows=4)
    np.testing.assert_array_equal(sampler(params, prompts, keys=keys).tokens, together.tokens)
    assert len(set(np.asarray(together.lengths).ravel().tolist())) > 2


@pytest.mark.slow
def test_every_mesh_samples_what_one_device_does():
    """With guides of another vocabulary and another number of heads; four prompts join a batch of eight."""
    large, small = replace(LARGE, vocab=32, heads=16, kv_heads=8), replace(SMALL, vocab=20, heads=4, kv_heads=2)
    params = [tiny_params(cfg, seed) for seed, cfg in enumerate((large, small, small))]
    token_map = TokenMap(jnp.arange(32) % 24 - 4, jnp.int32(7))
    prompts = jax.tree.map(lambda x: np.tile(x, (6, 1)), PROMPTS)
    prompts = prompts._replace(guide=Prompts(prompts.tokens % 20, prompts.mask))
    keys = completion_keys(jax.random.key(1), jnp.arange(12), group_size=2)
    guided = partial(sample, make_decoder(large, small), GuidedParams(*params, token_map), prompts, keys)
    stop_ids = tuple(np.unique(guided().tokens[..., 2:4])[::2].tolist())  # tokens that are sampled
    expected = guided(stop_ids=stop_ids)
    assert len(set(np.asarray(expected.lengths).ravel().tolist())) > 2
    for sizes in ((8, 1, 1), (2, 2, 2)):
        mesh = make_mesh(sizes)
        placed = [
            shard_params(x, mesh, partition_rules(cfg)) for x, cfg in zip(params, (large, small, small), strict=True)
        ]
        decoder = make_decoder(large, small, mesh)
        sampler = Sampler(decoder, Sampling(0.7), max_tokens=8, stop_ids=stop_ids, rows=16, mesh=mesh)
        ours = sampler(GuidedParams(*placed, token_map), prompts, keys=keys)
        for field in ("tokens", "mask", "truncated"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(expected, field), f"{sizes} {field}")
        # The guided logits reach 40, where neighbouring float32 numbers are 4e-6 apart.
        np.testing.assert_allclose(ours.logps, expected.logps, rtol=0, atol=2e-5)

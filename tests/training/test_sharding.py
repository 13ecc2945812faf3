"""Eight simulated devices, laid out in every way, against one."""

from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jaxreason.mesh import make_mesh, on_rows
from jaxreason.models.scoring import score_completions
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.algorithms import GRPO
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, generate, row_keys
from jaxreason.training.parts import updater
from jaxreason.training.sharding import model_rules, place
from jaxreason.training.state import init_state
from jaxreason.training.steps import grpo_update, prepare
from jaxreason.types import Prompts
from tests.models.families import TINY, tiny_params

MESHES = [(8, 1, 1), (2, 2, 2), (1, 1, 8)]
COUNT, GROUPS, WIDTH, LENGTH = 8, 2, 6, 9
OPTIMIZER = optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 1)  # Adam's first step is rounding where gradients are
LIMITS = {"sampling": Sampling(), "max_tokens": LENGTH, "stop_ids": (1, 2)}
FAMILIES = {name: replace(cfg, vocab=32, heads=16, kv_heads=8) for name, cfg in TINY.items()}


def prompts(cfg) -> Prompts:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, cfg.vocab, (COUNT, WIDTH)).astype(np.int32)
    return Prompts(tokens, np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (COUNT, 1)))


def keys():
    return row_keys(jax.random.key(5), np.arange(COUNT), GROUPS)


@cache
def on_one(name: str):
    """The model, its parameters, rollouts, their scores, and the state after an update on them, on one device."""
    cfg = FAMILIES[name]
    model, params = Transformer(cfg), tiny_params(cfg, 3)
    sample = jax.jit(partial(generate, decoder=TransformerDecoder(model), **LIMITS))
    rollouts = jax.device_get(sample(params, prompts(cfg), keys=keys()))
    scores = jax.jit(partial(score_completions, model=model))(params, prompts(cfg), rollouts.tokens, rollouts.mask)
    rewards = np.random.default_rng(1).random((COUNT, GROUPS)).astype(np.float32)
    batch = prepare(rollouts, rewards, GRPO)
    update = jax.jit(partial(grpo_update, model=model, algorithm=GRPO, optimizer=OPTIMIZER))
    return cfg, params, rollouts, scores, batch, update(init_state(params, OPTIMIZER, 0), batch)


def assert_same_samples(ours, expected, name=""):
    for field in ("tokens", "mask", "truncated"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(expected, field), f"{name} {field}")
    np.testing.assert_allclose(ours.logps, expected.logps, atol=1e-5)


def assert_close(ours, expected):
    """To 1e-5 of the largest number in each array."""
    for a, b in zip(jax.tree.leaves(jax.device_get(ours)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(np.abs(b).max()) + 1e-9)


@pytest.mark.parametrize("name", TINY)
def test_every_mesh_computes_what_one_device_does(name):
    cfg, params, rollouts, scores, batch, (state, metrics) = on_one(name)
    assert rollouts.lengths.min(initial=LENGTH, where=rollouts.lengths > 1) > 1 and rollouts.truncated.any()
    for sizes in MESHES:
        mesh = make_mesh(sizes)
        model, rules = Transformer(cfg, mesh=mesh), model_rules(cfg)
        placed = place(params, mesh, rules)
        sampler = Sampler(TransformerDecoder(model), **LIMITS, rows=12, mesh=mesh)
        assert_same_samples(sampler(placed, prompts(cfg), keys=keys()), rollouts, f"{sizes}")

        given = on_rows((prompts(cfg), rollouts.tokens, rollouts.mask), mesh)
        assert_close(jax.jit(partial(score_completions, model=model))(placed, *given), scores)

        update = updater(model=model, algorithm=GRPO, optimizer=OPTIMIZER, memory=1e5)
        start = place(init_state(params, OPTIMIZER, 0), mesh, rules)
        moved, ours = update(start, batch)
        assert_close(moved.params, state.params)
        for metric in ("loss", "entropy", "grad_norm"):
            np.testing.assert_allclose(ours[metric], metrics[metric], rtol=1e-5, atol=1e-6, err_msg=metric)
        momentum = moved.opt_state.inner_state[0].trace["model"]["layers"]["0"]["mlp"]["down_proj"]["weight"]
        assert momentum.addressable_shards[0].data.shape == (cfg.width // sizes[1], cfg.mlp_width // sizes[2])


@pytest.mark.parametrize("name", TINY)
def test_pmap_and_shard_map_take_the_same_functions(name):
    cfg, params, rollouts, scores, batch, (state, metrics) = on_one(name)
    model = Transformer(cfg)
    sample = partial(generate, decoder=TransformerDecoder(model), **LIMITS)
    score = partial(score_completions, model=model)
    update = partial(grpo_update, model=model, algorithm=GRPO, optimizer=OPTIMIZER, axis_name="data")
    start = init_state(params, OPTIMIZER, 0)

    def apart(tree):
        return jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), tree)

    def together(tree):
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)

    completions = prompts(cfg), rollouts.tokens, rollouts.mask
    drawn = jax.pmap(lambda p, x, k: sample(p, x, keys=k), in_axes=(None, 0, 0))(params, *apart((prompts(cfg), keys())))
    assert_same_samples(together(drawn), rollouts)
    assert_close(together(jax.pmap(score, in_axes=(None, 0, 0, 0))(params, *apart(completions))), scores)
    moved, ours = jax.pmap(update, axis_name="data", in_axes=(None, 0))(start, apart(batch))
    assert_close(jax.tree.map(lambda x: x[5], moved.params), state.params)
    np.testing.assert_allclose(ours["grad_norm"], [metrics["grad_norm"]] * 8, rtol=1e-5)

    def mapped(function, cut, out):
        how = {"mesh": make_mesh((8, 1, 1)), "in_specs": (P(), *[P("data")] * cut), "out_specs": out}
        return jax.jit(jax.shard_map(function, **how, check_vma=False))

    drawn = mapped(lambda p, x, k: sample(p, x, keys=k), 2, P("data"))(params, prompts(cfg), keys())
    assert_same_samples(jax.device_get(drawn), rollouts)
    assert_close(mapped(score, 3, P("data"))(params, *completions), scores)
    moved, ours = mapped(update, 1, P())(start, batch)
    assert_close(moved.params, state.params)
    np.testing.assert_allclose(ours["grad_norm"], metrics["grad_norm"], rtol=1e-5)

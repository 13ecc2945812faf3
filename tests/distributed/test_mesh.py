"""Eight simulated devices in meshes of every kind, against one device."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jaxreason.distributed.mesh import jit_batch_sharded, make_mesh, mesh_from_flag, shard_batch
from jaxreason.errors import InputError
from jaxreason.models.fuse import fuse
from jaxreason.models.partition import check_mesh, partition_rules, shard_params, shardings
from jaxreason.models.scoring import score_completions
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.algorithms import GRPO
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, completion_keys, generate
from jaxreason.training.batch import make_batch
from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.microbatch import MicrobatchedUpdate
from jaxreason.training.state import TrainState, init_sharded_state, init_state, make_optimizer, skip_not_finite
from jaxreason.training.updates import grpo_update
from jaxreason.types import Prompts
from tests.models.families import TINY, tiny_params

MESHES = [(8, 1, 1), (2, 2, 2), (1, 1, 8)]
COUNT, GROUP_SIZE, WIDTH, LENGTH = 8, 2, 6, 9
OPTIMIZER = skip_not_finite(optax.sgd(0.1, momentum=0.9))  # Adam's first step is rounding where gradients are
LIMITS = {"sampling": Sampling(), "max_tokens": LENGTH, "stop_ids": (1, 2)}
FAMILIES = {name: replace(cfg, vocab=32, heads=16, kv_heads=8) for name, cfg in TINY.items()}


def prompts(cfg) -> Prompts:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, cfg.vocab, (COUNT, WIDTH)).astype(np.int32)
    return Prompts(tokens, np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (COUNT, 1)))


def keys():
    return completion_keys(jax.random.key(5), np.arange(COUNT), GROUP_SIZE)


@cache
def on_one(name: str):
    """The model, its parameters, rollouts, their scores, and the state after an update on them, on one device."""
    cfg = FAMILIES[name]
    model, params = Transformer(cfg), tiny_params(cfg, 3)
    sample = jax.jit(partial(generate, decoder=TransformerDecoder(model), **LIMITS))
    rollouts = jax.device_get(sample(params, prompts(cfg), keys=keys()))
    scores = jax.jit(partial(score_completions, model=model))(params, prompts(cfg), rollouts.tokens, rollouts.mask)
    rewards = np.random.default_rng(1).random((COUNT, GROUP_SIZE)).astype(np.float32)
    batch = make_batch(rollouts, rewards, GRPO)
    update = jax.jit(partial(grpo_update, model=model, algorithm=GRPO, optimizer=OPTIMIZER))
    return cfg, params, rollouts, scores, batch, update(init_state(params, OPTIMIZER, 0), batch)


def assert_same_samples(ours, expected, name=""):
    for field in ("tokens", "mask", "truncated"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(expected, field), f"{name} {field}")
    np.testing.assert_allclose(ours.logps, expected.logps, rtol=1e-5, atol=1e-5)


def assert_close(ours, expected):
    """To 1e-5 of the largest number in each array."""
    for a, b in zip(jax.tree.leaves(jax.device_get(ours)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(np.abs(b).max()) + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama3", "qwen2", "gemma3"])  # untied, with biases, sandwich norms
def test_every_mesh_computes_what_one_device_does(name):
    cfg, params, rollouts, scores, batch, (state, metrics) = on_one(name)
    assert rollouts.lengths.min(initial=LENGTH, where=rollouts.lengths > 1) > 1 and rollouts.truncated.any()
    for sizes in MESHES:
        mesh = make_mesh(sizes)
        model, rules = Transformer(cfg, mesh=mesh), partition_rules(cfg)
        placed = shard_params(params, mesh, rules)
        sampler = Sampler(TransformerDecoder(model), **LIMITS, rows=12, mesh=mesh)
        assert_same_samples(sampler(placed, prompts(cfg), keys=keys()), rollouts, f"{sizes}")

        given = shard_batch((prompts(cfg), rollouts.tokens, rollouts.mask), mesh)
        assert_close(jax.jit(partial(score_completions, model=model))(placed, *given), scores)

        update = MicrobatchedUpdate(model=model, algorithm=GRPO, optimizer=OPTIMIZER, activation_bytes=1e5)
        start = shard_params(init_state(params, OPTIMIZER, 0), mesh, rules)
        moved, ours = update(start, batch)
        assert_close(moved.params, state.params)
        for metric in ("loss", "entropy", "grad_norm"):
            np.testing.assert_allclose(ours[metric], metrics[metric], rtol=1e-5, atol=1e-6, err_msg=metric)
        momentum = moved.opt_state.inner[0].trace["model"]["layers"]["0"]["mlp"]["down_proj"]["weight"]
        assert momentum.addressable_shards[0].data.shape == (
            cfg.hidden_size // sizes[1],
            cfg.intermediate_size // sizes[2],
        )


@pytest.mark.slow
def test_pmap_and_shard_map_take_the_same_functions():
    cfg, params, rollouts, scores, batch, (state, metrics) = on_one("llama3")
    model = Transformer(cfg)
    sample = partial(generate, decoder=TransformerDecoder(model), **LIMITS)
    score = partial(score_completions, model=model)
    update = partial(grpo_update, model=model, algorithm=GRPO, optimizer=OPTIMIZER, axis_name="data")
    start = init_state(params, OPTIMIZER, 0)

    def split(tree):
        return jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), tree)

    def join(tree):
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)

    batch = batch._replace(consumed=np.ones(COUNT, np.int32))  # each device counts its own prompt
    completions = prompts(cfg), rollouts.tokens, rollouts.mask
    drawn = jax.pmap(lambda p, x, k: sample(p, x, keys=k), in_axes=(None, 0, 0))(params, *split((prompts(cfg), keys())))
    assert_same_samples(join(drawn), rollouts)
    assert_close(join(jax.pmap(score, in_axes=(None, 0, 0, 0))(params, *split(completions))), scores)
    moved, ours = jax.pmap(update, axis_name="data", in_axes=(None, 0))(start, split(batch))
    assert_close(jax.tree.map(lambda x: x[5], moved.params), state.params)
    np.testing.assert_allclose(ours["grad_norm"], [metrics["grad_norm"]] * 8, rtol=1e-5)

    def mapped(function, sharded, out):
        specs = P(), *[P("data")] * sharded
        mesh = make_mesh((8, 1, 1))
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))

    drawn = mapped(lambda p, x, k: sample(p, x, keys=k), 2, P("data"))(params, prompts(cfg), keys())
    assert_same_samples(jax.device_get(drawn), rollouts)
    assert_close(mapped(score, 3, P("data"))(params, *completions), scores)
    moved, ours = mapped(update, 1, P())(start, batch)
    assert_close(moved.params, state.params)
    np.testing.assert_allclose(ours["grad_norm"], metrics["grad_norm"], rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 1, 4), "--mesh 1,1,4: tensor = 4 does not divide the key heads, 2; give --mesh 1,2,2"),
        ((1, 4, 1), "--prompts-per-step 6 does not divide over data x fsdp = 4 of mesh 1,4,1: give 8"),
        ((4, 1, 1), "--prompts-per-step 6 does not divide over data x fsdp = 4 of mesh 4,1,1: give 8"),
    ],
)
def test_a_mesh_that_does_not_divide_is_refused_with_the_nearest_that_does(sizes, message):
    with pytest.raises(InputError) as refused:
        check_mesh(make_mesh(sizes, jax.devices()[:4]), TINY["llama"], "prompts_per_step", 6)
    assert str(refused.value) == message


def test_equal_calls_share_one_compiled_function():
    traces = []

    def scaled(params, x, *, scale):
        traces.append(scale)
        return params * x * scale

    for scale in (2, 3, 2):
        function = jit_batch_sharded(scaled, make_mesh((8, 1, 1)), scale=scale)
        np.testing.assert_array_equal(function(jnp.int32(5), np.arange(8)), 5 * scale * np.arange(8))
    assert traces == [2, 3]


def test_a_mesh_fills_its_devices():
    with pytest.raises(InputError, match=r"mesh 2,3,1 does not fill 8 devices: give 2,4,1 \(data, fsdp, tensor\)"):
        make_mesh((2, 3, 1))
    with pytest.raises(InputError, match="--mesh '2x4' is not three numbers: give data,fsdp,tensor, as 1,8,1"):
        mesh_from_flag("2x4")


def test_every_parameter_has_one_rule_and_every_rule_a_parameter():
    mesh, rules = make_mesh((2, 2, 2)), partition_rules(TINY["llama3"])
    params = tiny_params(TINY["llama3"], 0)
    with pytest.raises(ValueError, match=r"rule 'lm_head\\\\.weight' matches no parameter"):
        shardings({name: x for name, x in params.items() if name != "lm_head"}, mesh, rules)
    with pytest.raises(ValueError, match=r"parameter model\.extra\.weight matches 0 rules"):
        shardings({"model": params["model"] | {"extra": {"weight": np.ones(3)}}}, mesh, rules)
    with pytest.raises(ValueError, match=r"gate_up_proj\.weight is fused, `tensor` cannot shard it"):
        shardings(fuse(params), mesh, rules)
    assert jax.tree.structure(shardings(fuse(params), make_mesh((2, 4, 1)), rules)) == jax.tree.structure(fuse(params))


@pytest.mark.slow
def test_a_checkpoint_goes_from_mesh_to_mesh(tmp_path):
    cfg, rules = FAMILIES["qwen2"], partition_rules(FAMILIES["qwen2"])
    params, optimizer = tiny_params(cfg, 3), make_optimizer(1e-3)
    devices = {8: (2, 2, 2), 4: (1, 4, 1), 2: (2, 1, 1), 1: (1, 1, 1)}

    def fresh(count: int, params=params) -> TrainState:
        mesh = make_mesh(devices[count], jax.devices()[:count])
        return init_sharded_state(shard_params(params, mesh, rules), optimizer, 7, mesh, rules)

    for written, read in [(8, 1), (8, 2), (8, 4), (1, 8), (4, 8)]:
        saved = fresh(written)._replace(step=jnp.int32(3))
        with Checkpoints(tmp_path / f"{written} to {read}") as checkpoints:
            checkpoints.save(saved)
        like = fresh(read, jax.tree.map(jnp.zeros_like, params))
        with Checkpoints(tmp_path / f"{written} to {read}") as checkpoints:
            restored = checkpoints.restore_or(like)
        assert len(jax.tree.leaves(restored.params)[0].sharding.device_set) == read
        for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True):
            if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
                ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
            np.testing.assert_array_equal(ours, theirs)

"""Plans against programs counted by hand, against whole models compiled, and against the formula of a step's cost.

The tests for TPUs need the compiler alone (extra `tpu`): they compile for chips that are not there.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxreason.distributed.mesh import make_mesh
from jaxreason.errors import InputError
from jaxreason.models.cost import matrix_parameters
from jaxreason.plan.__main__ import Config, run
from jaxreason.plan.candidates import best_mesh, changed_flags, first_that_fits, meshes, same_slice, smaller_specs
from jaxreason.plan.figures import measure
from jaxreason.plan.programs import StepSpec, programs
from jaxreason.plan.report import mesh_sizes, plan
from jaxreason.plan.slices import Slice, find_slice
from jaxreason.weights.presets import preset
from tests.models.families import TINY


def sharded(mesh, shape: tuple[int, ...], *axes: str | None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes)))


@pytest.mark.parametrize("level", [0, 3])
def test_figures_of_a_loop_counted_by_hand(level):
    mesh = make_mesh((1, 8, 1))
    x, w = sharded(mesh, (64, 128), "fsdp"), sharded(mesh, (3, 128, 128), None, "fsdp")

    def three_layers(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    options = {"xla_backend_optimization_level": level}
    figures, result = measure(jax.jit(three_layers, out_shardings=x.sharding, compiler_options=options), x, w)
    assert figures.arguments == (8 * 128 + 3 * 16 * 128) * 4
    assert figures.flops == pytest.approx(3 * 2 * 8 * 128 * 128, rel=0.01)
    assert result.shape == (64, 128) and result.sharding.is_equivalent_to(x.sharding, 2)


@pytest.mark.parametrize("level", [0, 3])
def test_bytes_of_explicit_collectives_counted_by_hand(level):
    mesh, k = make_mesh((1, 4, 2)), 4  # devices along fsdp
    x, w = sharded(mesh, (64, 128), "fsdp"), sharded(mesh, (3, 128, 128), None, "fsdp")

    def layer(x, w):  # of one device: x [16 128], w [32 128]
        x = x @ jax.lax.all_gather(w, "fsdp", tiled=True)
        x = jax.lax.psum(x, "tensor") / jax.lax.psum(jnp.abs(x), "tensor")
        x = jax.lax.all_to_all(x, "fsdp", 0, 0, tiled=True)
        x = jax.lax.ppermute(x, "fsdp", [(i, (i + 1) % k) for i in range(k)])
        return x, jax.lax.psum_scatter(x, "fsdp", tiled=True)

    specs = x.sharding.spec, w.sharding.spec
    layers = jax.shard_map(
        lambda x, w: jax.lax.scan(layer, x, w), mesh=mesh, in_specs=specs, out_specs=specs, check_vma=False
    )
    figures, _ = measure(jax.jit(layers, compiler_options={"xla_backend_optimization_level": level}), x, w)
    block_x, block_w = 16 * 128 * 4, 32 * 128 * 4
    assert figures.collective_bytes == {  # three layers
        "all-gather": 3 * (k - 1) * block_w,  # passes on every block but one
        "all-reduce": 3 * 2 * block_x,  # two sums: half a block to reduce and half to gather, between two devices
        "reduce-scatter": 3 * (k - 1) * block_x / k,
        "all-to-all": 3 * (k - 1) * block_x / k,
        "collective-permute": 3 * block_x,
    }


def small(family: str, layers: int, **changes) -> StepSpec:
    cfg = replace(TINY[family], layers=layers, **changes)
    return StepSpec(cfg, make_mesh((1, 4, 1), jax.devices()[:4]), 8, 4, 16, 64, dtype=jnp.float32, remat=False)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [small("qwen3", 12), small("gemma3", 12, sliding=(True, True, False) * 4)])
def test_shallow_models_extrapolate_to_a_deep_one(spec):
    extrapolated, compiled = programs(spec), programs(spec, whole=True)
    for name, figures in compiled.items():
        assert extrapolated[name].arguments == figures.arguments
        assert extrapolated[name].flops == pytest.approx(figures.flops, rel=0.05)
        assert extrapolated[name].working == pytest.approx(figures.working, rel=0.1, abs=2e5)


def update_flops(spec: StepSpec) -> float:
    """Of all microbatches: forward, recomputed forward, and twice that for the gradient; masked keys included."""
    cfg, prompt, completion = spec.cfg, spec.prompt_tokens, spec.max_tokens - 1
    table = cfg.vocab * cfg.hidden_size
    layers, attention = matrix_parameters(cfg) - table, 4 * cfg.layers * cfg.heads * cfg.head_dim
    of_prompt = prompt * (2 * layers + attention * prompt)
    of_completion = completion * (2 * layers + attention * (prompt + completion)) + (completion + 1) * 2 * table
    return 4 * spec.prompts * (of_prompt + spec.group_size * of_completion)


@pytest.mark.parametrize("name", ["gemma3-270m", "qwen3-0.6b"])
def test_the_tpu_compiler_takes_sampler_and_update(name):
    pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install 'jaxreason[tpu]'")
    topology = find_slice("v5e:2x2")
    chip = make_mesh((1, 1, 1), topology.devices[:1])
    spec = best_mesh(StepSpec(preset(name), chip, 32, 8, 256, 512), topology, False)
    report = plan(spec, topology)
    assert report.fits and 0 < report.peak < topology.memory
    flops = report.programs["gradient"].flops * report.calls["gradient"] * len(topology.devices)
    assert flops == pytest.approx(update_flops(spec), rel=0.05)
    if name == "gemma3-270m":
        whole = plan(spec, topology, whole=True)
        assert report.peak == pytest.approx(whole.peak, rel=0.05)
        assert report.times == pytest.approx(whole.times, rel=0.05)


def test_meshes_that_a_torus_cannot_form_are_left_out():
    pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install 'jaxreason[tpu]'")
    devices = find_slice("v6e:4x4").devices
    spec = StepSpec(preset("qwen3-0.6b"), make_mesh((1, 1, 1), devices[:1]), 32, 8, 256, 512)
    assert [mesh_sizes(each) for each in meshes(spec, devices)] == ["1,16,1", "1,4,4"]  # tensor = 2, 8 cut rows of four
    with pytest.raises(InputError, match="mesh 1,8,2 splits no torus of 16 chips: give 1,16,1"):
        make_mesh((1, 8, 2), devices)


@pytest.mark.slow
def test_a_step_that_does_not_fit_leads_to_one_that_does():
    spec = small("qwen3", 2)
    unlimited = plan(spec, Slice("4 x cpu", tuple(jax.devices()[:4]), None, 0.0))
    topology = replace(unlimited.topology, memory=0.8 * unlimited.peak)
    requested = replace(unlimited, topology=topology)
    fitting = first_that_fits(smaller_specs(spec, topology), reference=False, measured=requested)
    assert not requested.fits and fitting.fits and fitting.spec.prompts == spec.prompts // 2
    assert changed_flags(fitting, requested) == "--prompts-per-step 4" and fitting.reason == "4 prompts"
    assert first_that_fits(same_slice(spec, topology), reference=False, measured=requested) is None


def test_fewer_prompts_still_divide_over_data_and_fsdp():
    topology = Slice("4 x cpu", tuple(jax.devices()[:4]), None, 0.0)
    spec = replace(small("qwen3", 2), mesh=make_mesh((2, 2, 1), topology.devices))
    assert {each.spec.prompts for each in smaller_specs(spec, topology)} == {8, 4}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"topology": "v5e:2x3"}, "--topology 'v5e:2x3' is unknown, the closest is 'v5e:2x4'"),
        ({"model": "qwen3-06b"}, "--model 'qwen3-06b' is unknown, the closest is 'qwen3-0.6b'"),
        ({"mesh": "1,3,1"}, "mesh 1,3,1 does not fill 8 devices: give 1,8,1"),
        ({"mesh": "1,x,1"}, "--mesh '1,x,1' is not three numbers: give data,fsdp,tensor"),
        ({"mesh": "1,1,8", "model": "gemma3-270m"}, "tensor = 8 does not divide the key heads, 1; give --mesh 1,8,1"),
        ({"mesh": "1,8,1", "prompts_per_step": 12}, "--prompts-per-step 12 does not divide over data x fsdp = 8"),
        ({"model": "gemma3-270m", "prompts_per_step": 12}, "divides over no mesh of 8 chips: give 16"),
        ({"table": "v9"}, "--table 'v9' is unknown"),
        ({"dtype": "int8"}, "--dtype 'int8' is unknown"),
        ({"group_size": 1}, "--group-size 1 is out of range"),
    ],
)
def test_bad_input_is_refused_in_a_line(flags, message):
    with pytest.raises(InputError, match=r"\w") as error:
        run(Config(**flags))
    assert message in str(error.value) and "\n" not in str(error.value)

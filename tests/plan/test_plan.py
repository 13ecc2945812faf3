"""Plans against hand-counted programs, against what whole models compile to, and against the formula of a step's cost.

Those of TPUs need the compiler alone (extra `tpu`), and are compiled for chips that are not there.
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
from jaxreason.plan.figures import measure
from jaxreason.plan.programs import StepSpec, programs
from jaxreason.plan.report import best_mesh, flags, nearest, plan
from jaxreason.plan.slices import Slice, find_slice
from jaxreason.weights.presets import preset
from tests.models.families import TINY


def test_figures_of_a_loop_with_a_collective_counted_by_hand():
    mesh = make_mesh((1, 8, 1))
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("fsdp")))
    w = jax.ShapeDtypeStruct((3, 32, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "fsdp")))

    def three_layers(x, w):
        def layer(x, w):
            return x @ jax.lax.with_sharding_constraint(w, NamedSharding(mesh, PartitionSpec())), None

        return jax.lax.scan(layer, x, w)[0]

    figures, result = measure(jax.jit(three_layers), x, w)
    assert figures.arguments == (8 * 32 + 3 * 4 * 32) * 4
    assert figures.flops == pytest.approx(3 * 2 * 8 * 32 * 32, rel=0.01)
    assert figures.collective_bytes == pytest.approx(
        {kind: 0.0 for kind in figures.collective_bytes} | {"all-gather": 3 * 32 * 32 * 4 * 7 / 8}
    )
    assert result.shape == (64, 32) and result.sharding.is_equivalent_to(x.sharding, 2)


def small(family: str, layers: int, **changes) -> StepSpec:
    cfg = replace(TINY[family], layers=layers, **changes)
    return StepSpec(cfg, make_mesh((1, 4, 1), jax.devices()[:4]), 8, 4, 16, 64, dtype=jnp.float32, remat=False)


@pytest.mark.parametrize("work", [small("qwen3", 12), small("gemma3", 12, sliding=(True, True, False) * 4)])
def test_shallow_models_foretell_a_deep_one(work):
    extrapolate_memory, compiled = programs(work), programs(work, whole=True)
    for name, figures in compiled.items():
        assert extrapolate_memory[name].arguments == figures.arguments
        assert extrapolate_memory[name].flops == pytest.approx(figures.flops, rel=0.05)
        assert extrapolate_memory[name].working == pytest.approx(figures.working, rel=0.1, abs=2e5)


def update_flops(work: StepSpec) -> float:
    """Of all parts: forward, again for what is recomputed, and twice for the gradient; every key is computed with."""
    cfg, prompt, written = work.cfg, work.prompt_tokens, work.max_tokens - 1
    table = cfg.vocab * cfg.hidden_size
    layers, attention = matrix_parameters(cfg) - table, 4 * cfg.layers * cfg.heads * cfg.head_dim
    of_prompt = prompt * (2 * layers + attention * prompt)
    of_completion = written * (2 * layers + attention * (prompt + written)) + (written + 1) * 2 * table
    return 4 * work.prompts * (of_prompt + work.group_size * of_completion)


@pytest.mark.parametrize("name", ["gemma3-270m", "qwen3-0.6b"])
def test_the_tpu_compiler_takes_sampler_and_update(name):
    pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install 'jaxreason[tpu]'")
    on = find_slice("v5e:2x2")
    work = best_mesh(StepSpec(preset(name), make_mesh((1, 1, 1), on.devices[:1]), 32, 8, 256, 512), on, False)
    found = plan(work, on)
    assert found.fits and 0 < found.peak < on.memory
    flops = found.programs["gradient"].flops * found.calls["gradient"] * len(on.devices)
    assert flops == pytest.approx(update_flops(work), rel=0.05)
    if name == "gemma3-270m":
        whole = plan(work, on, whole=True)
        assert found.peak == pytest.approx(whole.peak, rel=0.05)
        assert found.times == pytest.approx(whole.times, rel=0.05)


def test_what_does_not_fit_leads_to_what_does():
    work = small("qwen3", 2)
    found = plan(work, Slice("4 x cpu", tuple(jax.devices()[:4]), None, 0.0))
    tight = replace(found, on=replace(found.on, memory=0.8 * found.peak))
    better = nearest(tight)
    assert not tight.fits and better.fits and better.work.prompts == work.prompts // 2
    assert flags(better, tight) == "--prompts-per-step 4"
    assert nearest(tight, elsewhere=False) is None


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

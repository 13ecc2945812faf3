"""Does a GRPO step fit, and what bounds its time? The compiler's answer, without the hardware.

    python -m jaxreason.plan --model qwen3-0.6b --topology v5e:2x2
    python -m jaxreason.plan --model llama3.1-8b --topology v5p:2x2x1 --max-tokens 2048
    python -m jaxreason.plan --model all --table v5e,v6e

Compiles the sampler's and the update's programs for the slice, or for the devices present, and reports their memory,
arithmetic, traffic and collectives. For TPUs: pip install 'jaxreason[tpu]', on any machine with Linux.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from jaxreason.distributed.mesh import make_mesh, parse_mesh
from jaxreason.errors import InputError
from jaxreason.models import ModelConfig
from jaxreason.models.partition import check_mesh
from jaxreason.plan.candidates import best_mesh, changed_flags, first_that_fits, same_slice, smaller_specs
from jaxreason.plan.programs import StepSpec
from jaxreason.plan.report import Plan, mesh_sizes, parameter_count, plan
from jaxreason.plan.slices import CHIPS, GIB, SLICES, Slice, find_slice
from jaxreason.runs import check_limits, choose, flag, main
from jaxreason.runs.setup import DTYPES
from jaxreason.weights.load import read_config
from jaxreason.weights.presets import PRESETS, preset


@dataclass(frozen=True)
class Config:
    model: str = "qwen3-0.6b"  # a preset, or a folder with config.json; with --table several, or all
    topology: str = ""  # v5e:2x2, v6e:4x4, v5p:2x2x1, ...; empty: the devices present
    mesh: str = ""  # data,fsdp,tensor; empty: the smallest tensor axis that fits, the rest over fsdp
    prompts_per_step: int = flag(32, 1)
    group_size: int = flag(8, 2)  # completions per prompt
    prompt_tokens: int = flag(256, 1)
    max_tokens: int = flag(512, 1)
    dtype: str = "bfloat16"  # of activations and matmuls; parameters stay float32
    remat: bool = True  # recompute activations instead of storing them
    activation_gb: float = flag(4.0, 1e-3)  # GB of activations on a device, about: sets the size of a microbatch
    lora_rank: int = flag(0, 0)  # train adapters of this rank and nothing else; 0: train everything
    kl_weight: float = flag(0.0, 0)  # above 0 a copy of the initial parameters stays in memory
    whole: bool = False  # compile every layer instead of extrapolating from shallow models
    table: str = ""  # chips, as v5e,v6e: instead, the smallest slice of each that fits, as Markdown


def run(cfg: Config) -> None:
    check_limits(cfg)
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot load programs of absent devices
    console, reference = Console(highlight=False), cfg.kl_weight > 0
    if cfg.table:
        return table(cfg, console)
    config, topology = find_config(cfg.model), find_slice(cfg.topology)
    spec = requested_spec(cfg, config, topology)
    console.print(f"compiling {cfg.model} for {topology.name}, which takes a minute or a few")
    requested = plan(spec, topology, reference=reference, whole=cfg.whole)
    show(requested, cfg.model, console)
    if not requested.fits:
        candidates = smaller_specs(spec, topology)
        fitting = first_that_fits(candidates, reference=reference, whole=cfg.whole, measured=requested)
        console.print(
            f"what fits: {changed_flags(fitting, requested)} ({fitting.reason})" if fitting else "nothing near it fits"
        )


def find_config(name: str) -> ModelConfig:
    folder = Path(name).expanduser()
    if name not in PRESETS and (folder / "config.json").is_file():
        return read_config(folder)
    choose("model", name, dict.fromkeys(PRESETS))
    return preset(name)


def single_chip_spec(cfg: Config, config: ModelConfig, topology: Slice) -> StepSpec:
    """The step on the slice's first chip."""
    sizes = cfg.prompts_per_step, cfg.group_size, cfg.prompt_tokens, cfg.max_tokens
    dtype, mesh = choose("dtype", cfg.dtype, DTYPES), make_mesh((1, 1, 1), topology.devices[:1])
    return StepSpec(config, mesh, *sizes, dtype, cfg.remat, cfg.activation_gb * 1e9, cfg.lora_rank)


def requested_spec(cfg: Config, config: ModelConfig, topology: Slice) -> StepSpec:
    """The step on the mesh of `--mesh`, or on the best one."""
    spec = single_chip_spec(cfg, config, topology)
    if cfg.mesh:
        spec = replace(spec, mesh=parse_mesh(cfg.mesh, topology.devices))
        check_mesh(spec.mesh, config, "prompts_per_step", cfg.prompts_per_step)
        return spec
    best, count = best_mesh(spec, topology, cfg.kl_weight > 0), len(topology.devices)
    if best is None:
        multiple = -(-cfg.prompts_per_step // count) * count
        raise InputError(
            f"--prompts-per-step {cfg.prompts_per_step} divides over no mesh of {count} chips: give {multiple}"
        )
    return best


def show(report: Plan, model: str, console: Console) -> None:
    spec, topology = report.spec, report.topology
    size, pieces = spec.microbatch
    console.print(
        f"{model}, {parameter_count(spec) / 1e9:.2f} billion parameters, on {topology.name}, mesh {mesh_sizes(spec)}\n"
        f"a step: {spec.prompts} prompts of {spec.prompt_tokens} tokens, {spec.group_size} completions of "
        f"{spec.max_tokens} tokens each; an update takes {size} prompts at a time, their completions in {pieces} pieces"
    )
    memory = Table("GiB of a device", "sampling", "updating")
    for kind, phases in report.memory.items():
        if any(phases):
            memory.add_row(kind, *(f"{x / GIB:.2f}" for x in phases))
    memory.add_section()
    memory.add_row("together", *(f"{sum(x) / GIB:.2f}" for x in zip(*report.memory.values(), strict=True)))
    console.print(memory)
    verdict = "it fits" if report.fits else "it does not fit"
    console.print(f"{verdict}: {report.peak / GIB:.2f} of {topology.memory / GIB:.2f} GiB")
    costs = Table("program", "calls", "TFLOP", "GB read, written", "MB sent", "at least", "bound by")
    for name, calls in report.calls.items():
        figures, seconds = report.programs[name], report.seconds(name)
        bound = max(seconds, key=seconds.__getitem__, default="")
        sent = (f"{kind} {count / 1e6:.1f}" for kind, count in figures.collective_bytes.items() if count >= 5e4)
        costs.add_row(
            name,
            str(calls),
            f"{figures.flops / 1e12:.3f}",
            f"{figures.traffic / 1e9:.2f}",
            ", ".join(sent) or "-",
            f"{seconds[bound] * 1e3:.1f} ms" if bound else "",
            bound,
        )
    console.print(costs)
    if topology.chip:
        sampling, updating = report.times
        share = report.model_flops / (sampling + updating) / topology.chip.flops / len(topology.devices)
        console.print(
            f"a step takes at least {sampling + updating:.1f} s, {sampling:.1f} of it sampling; the model's arithmetic"
            f" is at most {share:.0%} of the chips' peak"
        )


def table(cfg: Config, console: Console) -> None:
    """Prints a line of Markdown for each model and chip: the smallest slice that fits."""
    models = PRESETS if cfg.model == "all" else cfg.model.split(",")
    chips = cfg.table.split(",")
    for chip in chips:
        choose("table", chip, CHIPS)
    console.print("| model | slice | mesh | GiB of a chip | a step at least |\n| --- | --- | --- | --- | --- |")
    for model in models:
        for chip in chips:
            fitting = smallest_slice(cfg, find_config(model), chip)
            cells = "none |"
            if fitting:
                topology = fitting.topology
                memory = f"{fitting.peak / GIB:.1f} of {topology.memory / GIB:.1f}"
                cells = f"{topology.name} | {mesh_sizes(fitting.spec)} | {memory} | {sum(fitting.times):.0f} s |"
            console.print(f"| `{model}` | {cells}", soft_wrap=True)


def smallest_slice(cfg: Config, config: ModelConfig, chip: str) -> Plan | None:
    """The plan of the whole step on the smallest slice of this chip that it fits."""
    reference = cfg.kl_weight > 0
    for topology in (find_slice(name) for name, kind in SLICES.items() if kind == chip):
        spec = best_mesh(single_chip_spec(cfg, config, topology), topology, reference)
        candidates = same_slice(spec, topology) if spec else []
        if fitting := first_that_fits(candidates, reference=reference, whole=cfg.whole):
            return fitting
    return None


if __name__ == "__main__":
    main(run, Config, __doc__)

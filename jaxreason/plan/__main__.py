"""Does a GRPO step fit, and what bounds it? The compiler's answer, without the hardware.

    python -m jaxreason.plan --model qwen3-0.6b --topology v5e:2x2
    python -m jaxreason.plan --model llama3.1-8b --topology v5p:2x2x1 --max-tokens 2048
    python -m jaxreason.plan --model all --table v5e,v6e

The sampler's and the update's programs are compiled for the slice named, or for the devices present, and asked what
they take. For TPUs: pip install 'jaxreason[tpu]', on any machine with Linux.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from jaxreason.distributed.mesh import make_mesh, parse_mesh
from jaxreason.errors import InputError
from jaxreason.models import ModelConfig
from jaxreason.models.partition import check_mesh
from jaxreason.plan.figures import DoesNotFit
from jaxreason.plan.programs import StepSpec
from jaxreason.plan.report import Plan, best_mesh, flags, memory_lower_bound, nearest, parameters, plan, sizes
from jaxreason.plan.slices import CHIPS, GIB, SLICES, Slice, find_slice
from jaxreason.runs import check_limits, choose, main
from jaxreason.runs.study import DTYPES
from jaxreason.weights.load import read_config
from jaxreason.weights.presets import PRESETS, preset

LIMITS = dict.fromkeys(("prompts_per_step", "prompt_tokens", "max_tokens"), (1, inf))
LIMITS |= {"group_size": (2, inf), "update_memory": (1e-3, inf), "lora_rank": (0, inf), "kl_weight": (0, inf)}


@dataclass(frozen=True)
class Config:
    model: str = "qwen3-0.6b"  # a preset, or a folder with config.json; with --table several, or all
    topology: str = ""  # v5e:2x2, v6e:4x4, v5p:2x2x1, ...; empty: the devices present
    mesh: str = ""  # data,fsdp,tensor; empty: tensor as small as leaves room, the rest over fsdp
    prompts_per_step: int = 32
    group_size: int = 8  # completions per prompt
    prompt_tokens: int = 256
    max_tokens: int = 512
    dtype: str = "bfloat16"  # of activations and matmuls; parameters stay float32
    remat: bool = True  # recompute activations instead of keeping them
    update_memory: float = 4.0  # GB for activations, about: how many prompts go through an update at a time
    lora_rank: int = 0  # train adapters of this rank and nothing else; 0: train everything
    kl_weight: float = 0.0  # above 0 the initial parameters are kept, too
    whole: bool = False  # compile every layer, not two or three shallow models and a line through them
    table: str = ""  # chips, as v5e,v6e: instead, the smallest slice of each that fits, as Markdown


def run(cfg: Config) -> None:
    check_limits(cfg, LIMITS)
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot read back what is not for this machine
    console = Console(highlight=False)
    if cfg.table:
        return table(cfg, console)
    config, on = find_config(cfg.model), find_slice(cfg.topology)
    work = chosen(cfg, config, on)
    console.print(f"compiling {cfg.model} for {on.name}, which takes a minute or a few")
    found = plan(work, on, reference=cfg.kl_weight > 0, whole=cfg.whole)
    show(found, cfg.model, console)
    if not found.fits:
        better = nearest(found)
        console.print(f"what fits: {flags(better, found)}" if better else "nothing near it fits")


def find_config(name: str) -> ModelConfig:
    folder = Path(name).expanduser()
    if name not in PRESETS and (folder / "config.json").is_file():
        return read_config(folder)
    choose("model", name, dict.fromkeys(PRESETS))
    return preset(name)


def one_chip(cfg: Config, config: ModelConfig, on: Slice) -> StepSpec:
    """The work on the slice's first chip alone."""
    sizes = cfg.prompts_per_step, cfg.group_size, cfg.prompt_tokens, cfg.max_tokens
    dtype, mesh = choose("dtype", cfg.dtype, DTYPES), make_mesh((1, 1, 1), on.devices[:1])
    return StepSpec(config, mesh, *sizes, dtype, cfg.remat, cfg.update_memory * 1e9, cfg.lora_rank)


def chosen(cfg: Config, config: ModelConfig, on: Slice) -> StepSpec:
    """The work, on the mesh asked for, or on the one with most room."""
    work = one_chip(cfg, config, on)
    if cfg.mesh:
        work = replace(work, mesh=parse_mesh(cfg.mesh, on.devices))
        check_mesh(work.mesh, config, "prompts_per_step", cfg.prompts_per_step)
        return work
    best, count = best_mesh(work, on, cfg.kl_weight > 0), len(on.devices)
    if best is None:
        more = -(-cfg.prompts_per_step // count) * count
        raise InputError(
            f"--prompts-per-step {cfg.prompts_per_step} divides over no mesh of {count} chips: give {more}"
        )
    return best


def show(found: Plan, name: str, console: Console) -> None:
    work, on = found.work, found.on
    size, pieces = work.part
    console.print(
        f"{name}, {parameters(work) / 1e9:.2f} billion parameters, on {on.name}, mesh {sizes(work)}\n"
        f"a step: {work.prompts} prompts of {work.prompt_tokens} tokens, {work.group_size} completions of {work.max_tokens}"
        f" tokens each; the update takes {size} prompts at a time, their completions in {pieces} pieces"
    )
    needs = Table("GiB of a device", "sampling", "updating")
    for kind, both in found.memory.items():
        if any(both):
            needs.add_row(kind, *(f"{x / GIB:.2f}" for x in both))
    needs.add_section()
    needs.add_row("together", *(f"{sum(x) / GIB:.2f}" for x in zip(*found.memory.values(), strict=True)))
    console.print(needs)
    verdict = "it fits" if found.fits else "it does not fit"
    console.print(f"{verdict}: {found.peak / GIB:.2f} of {on.memory / GIB:.2f} GiB")
    costs = Table("program", "calls", "TFLOP", "GB read, written", "MB sent", "at least", "bound by")
    for name, calls in found.calls.items():
        figures, seconds = found.programs[name], found.seconds(name)
        by = max(seconds, key=seconds.__getitem__, default="")
        collective_bytes = ", ".join(
            f"{kind} {count / 1e6:.1f}" for kind, count in figures.collective_bytes.items() if count >= 5e4
        )
        time = f"{seconds[by] * 1e3:.1f} ms" if by else ""
        costs.add_row(
            name,
            str(calls),
            f"{figures.flops / 1e12:.3f}",
            f"{figures.traffic / 1e9:.2f}",
            collective_bytes or "-",
            time,
            by,
        )
    console.print(costs)
    if on.chip:
        sampling, updating = found.times
        share = found.model_flops / (sampling + updating) / on.chip.flops / len(on.devices)
        console.print(
            f"a step takes at least {sampling + updating:.1f} s, {sampling:.1f} of it sampling; the model's arithmetic"
            f" is at most {share:.0%} of the chips' peak"
        )


def table(cfg: Config, console: Console) -> None:
    """A line of Markdown for each model and chip, as it is found: the smallest slice that fits."""
    names = PRESETS if cfg.model == "all" else cfg.model.split(",")
    chips = cfg.table.split(",")
    for chip in chips:
        choose("table", chip, CHIPS)
    console.print("| model | slice | mesh | GiB of a chip | a step at least |\n| --- | --- | --- | --- | --- |")
    for name in names:
        for chip in chips:
            found = smallest(cfg, find_config(name), [each for each in SLICES if each.startswith(f"{chip}:")])
            row = f"| `{name}` | "
            if found:
                row += (
                    f"{found.on.name} | {sizes(found.work)} | {found.peak / GIB:.1f} of {found.on.memory / GIB:.1f} | "
                )
            console.print(row + (f"{sum(found.times):.0f} s |" if found else "none |"), soft_wrap=True)


def smallest(cfg: Config, config: ModelConfig, names: list[str]) -> Plan | None:
    reference = cfg.kl_weight > 0
    for name in names:
        on = find_slice(name)
        work = best_mesh(one_chip(cfg, config, on), on, reference)
        if work is None or memory_lower_bound(work, reference) > on.memory:
            continue
        with suppress(DoesNotFit):
            found = plan(work, on, reference=reference, whole=cfg.whole)
            if not found.fits:
                found = nearest(found, elsewhere=False)
            if found:
                return found
    return None


if __name__ == "__main__":
    main(run, Config, __doc__)

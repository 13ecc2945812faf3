"""How many bytes do devices send each other in a GRPO step, under weak scaling along each axis of the mesh?

    python experiments/benchmarks/collectives.py
    python experiments/benchmarks/collectives.py --model llama3.2-1b

The sampler's and the update's programs are compiled, not run, for 1, 2, 4 and 8 simulated devices, along each axis of
the mesh alone and along all three; the bytes come from their HLO. The number of prompts grows with `data` and `fsdp`,
not with `tensor`. Writes collectives.csv and collectives.png into `--out`.
"""

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from jaxreason.distributed.mesh import MESH_AXES, make_mesh
from jaxreason.models.partition import check_mesh
from jaxreason.plan.figures import COLLECTIVES
from jaxreason.plan.programs import StepSpec, programs
from jaxreason.runs import check_limits, choose, defaults, flag, main, write_csv
from jaxreason.weights.presets import PRESETS, preset

DEVICES = 8
UNLIMITED = 1e15
"""Bytes of activations: an update takes all prompts in one microbatch."""
flag_defaults = defaults(smoke={"prompts": 1, "max_tokens": 16})


@dataclass(frozen=True)
class Config:
    model: str = "qwen3-0.6b"  # a preset whose heads divide by eight
    prompts: int = flag(4, 1)  # per device
    group_size: int = flag(8, 2)
    prompt_tokens: int = flag(128, 1)
    max_tokens: int = flag(256, 1)
    out: str = "runs/benchmarks/collectives"
    smoke: bool = False  # a few tokens


def run(cfg: Config) -> list[dict]:
    check_limits(cfg)
    choose("model", cfg.model, dict.fromkeys(PRESETS))
    console, rows = Console(highlight=False), []
    for sizes in meshes():
        count = prod(sizes)
        mesh = make_mesh(sizes, jax.devices()[:count])
        prompts = cfg.prompts * sizes[0] * sizes[1]
        check_mesh(mesh, preset(cfg.model), "prompts", prompts)
        step_sizes = prompts, cfg.group_size, cfg.prompt_tokens, cfg.max_tokens
        spec = StepSpec(preset(cfg.model), mesh, *step_sizes, dtype=jnp.float32, activation_bytes=UNLIMITED)
        console.print(f"compiling for {count} devices, mesh {','.join(map(str, sizes))}")
        for name, figures in programs(spec).items():
            axes = dict(zip(MESH_AXES, sizes, strict=True))
            rows.append({"devices": count, **axes, "program": name, **figures.collective_bytes})
    folder = Path(cfg.out)
    write_csv(folder / "collectives.csv", rows)
    report(rows, console)
    title = f"{cfg.model}, {cfg.prompts} prompts x {cfg.group_size} completions per device"
    plot(rows, folder / "collectives.png", title)
    console.print(f"all files of this run: {folder}")
    return rows


def meshes() -> list[tuple[int, ...]]:
    """One device; 2, 4 and 8 along each axis alone; 2 along all three."""
    axes = range(len(MESH_AXES))
    return [(1, 1, 1), *(tuple(n if i == axis else 1 for i in axes) for axis in axes for n in (2, 4, 8)), (2, 2, 2)]


def total_bytes(row: dict) -> float:
    return sum(row[kind] for kind in COLLECTIVES)


def report(rows: list[dict], console: Console) -> None:
    table = Table("mesh", "prefill, MB", "a token, MB", "an update, MB", "by collective")
    by_mesh: dict[tuple[int, ...], dict[str, dict]] = {}
    for row in rows:
        by_mesh.setdefault(tuple(row[axis] for axis in MESH_AXES), {})[row["program"]] = row
    for sizes, figures in by_mesh.items():
        update = {kind: figures["gradient"][kind] + figures["optimiser"][kind] for kind in COLLECTIVES}
        kinds = ", ".join(f"{kind} {count / 1e6:.1f}" for kind, count in update.items() if count > 5e4)
        cells = (total_bytes(figures["prompts"]), total_bytes(figures["a token"]), sum(update.values()))
        table.add_row(",".join(map(str, sizes)), *(f"{x / 1e6:.2f}" for x in cells), kinds or "-")
    console.print(table)


def plot(rows: list[dict], path: Path, title: str) -> None:
    matplotlib.use("agg")
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for ax, (names, label) in zip(
        axes, ((("gradient", "optimiser"), "an update"), (("a token",), "a token")), strict=True
    ):
        for i, axis in enumerate(MESH_AXES):
            points = {1: 0.0}
            for row in rows:
                alone = all(row[other] == 1 for j, other in enumerate(MESH_AXES) if j != i)
                if alone and row[axis] > 1 and row["program"] in names:
                    points[row[axis]] = points.get(row[axis], 0.0) + total_bytes(row) / 1e6
            ax.plot(points.keys(), points.values(), "o-", label=f"over {axis}")
        ax.set(xlabel="devices", ylabel="MB that a device sends", title=label)
        ax.legend()
        ax.grid(alpha=0.3)
    fig.suptitle(title)
    fig.savefig(path, dpi=120)
    plt.close(fig)


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # what is not run need not be fast
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    main(run, Config, __doc__, flag_defaults)

"""Runs of experiments/grpo_gsm8k.py that differ in a few flags, from one start and several seeds, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpo_gsm8k
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxreason.evaluation import plot_curve, runs_interval
from jaxreason.runs import check_limits, choose, defaults, flag, problem_means, read_rows, run_experiment, write_csv


@dataclass(frozen=True)
class SweepConfig:
    """what such experiments share"""

    model: str = "tiny"  # as --model elsewhere
    task: str = "grade-school"
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    only: str = ""  # names with commas between; empty: all of them
    steps: int = flag(30, 1)
    seeds: int = flag(1, 1)  # number of seeds, from 0 on
    eval_problems: int = flag(500, 1)
    out: str = ""  # folder of all runs; empty: runs/EXPERIMENT
    smoke: bool = False  # a few steps of each


flag_defaults = defaults(pretrained={"task": "gsm8k", "eval_problems": 50}, smoke={"steps": 2, "eval_problems": 4})


class Sweep(NamedTuple):
    rows: list[dict]
    """One for each run and seed."""
    curves: dict[str, list[list[dict]]]
    """The metrics of every step, by run and seed."""
    accuracy: dict[str, list[np.ndarray]]
    """The mean grade of every held-out problem after training, by run and seed."""
    folder: Path


def sweep(cfg: SweepConfig, name: str, runs: Mapping[str, Mapping[str, Any]]) -> Sweep:
    """Runs what is not done yet."""
    check_limits(cfg)
    console, folder = Console(highlight=False), Path(cfg.out or f"runs/{name}")
    chosen = cfg.only.split(",") if cfg.only else list(runs)
    for run in chosen:
        choose("only", run, runs)
    rows, curves, accuracy = [], *({run: [] for run in chosen} for _ in range(2))
    for seed in range(cfg.seeds):
        for run in chosen:
            console.rule(f"{run}, seed {seed}")
            out = folder / f"{run}-{seed}"
            flags = {"model": cfg.model, "task": cfg.task, "data": cfg.data, "steps": cfg.steps, "seed": seed}
            flags |= {"eval_problems": cfg.eval_problems, "eval_every": 0, "smoke": cfg.smoke}
            summary = run_experiment(grpo_gsm8k, out, **(flags | runs[run]))
            steps = read_rows(out / "metrics.jsonl")
            curves[run].append(steps)
            accuracy[run].append(problem_means(out))
            rows.append({"run": run, "seed": seed, **summarise(summary, steps)})
    return Sweep(rows, curves, accuracy, folder)


def summarise(summary: dict, steps: list[dict]) -> dict[str, float]:
    before, after = summary["before"], summary["after"]
    total = {name: sum(row[name] for row in steps) for name in ("tokens", "seconds_sampling", "seconds_update")}
    return {
        "before": before["lenient_pass@1"],
        "after": after["lenient_pass@1"],
        "low": after["lenient_low"],
        "high": after["lenient_high"],
        "length_before": before["length_mean"],
        "length_after": after["length_mean"],
        "entropy_start": steps[0]["entropy"],
        "entropy_end": steps[-1]["entropy"],
        "clip_fraction": float(np.mean([row["clip_fraction"] for row in steps])),
        **total,
    }


def group_by_run(rows: list[dict]) -> dict[str, list[dict]]:
    return {run: [row for row in rows if row["run"] == run] for run in dict.fromkeys(row["run"] for row in rows)}


def write(done: Sweep, table: Table, metrics: Mapping[str, str]) -> None:
    """The rows as CSV, every step as CSV, the table, and a plot of some metrics over training, seeds averaged."""
    rows, curves, accuracy, folder = done
    steps = [
        {"run": run, "seed": s, **row} for run, seeds in curves.items() for s, rows in enumerate(seeds) for row in rows
    ]
    for name, lines in {"runs": rows, "steps": steps}.items():
        write_csv(folder / f"{name}.csv", lines)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(metrics), 4), layout="constrained")
    for axes, (metric, label) in zip(np.ravel(figure.subplots(1, len(metrics))), metrics.items(), strict=True):
        for i, (run, seeds) in enumerate(curves.items()):
            mean = np.mean([[row[metric] for row in rows] for rows in seeds], axis=0)
            plot_curve(axes, [row["step"] for row in seeds[0]], mean.tolist(), label=run, color=f"C{i}")
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(folder / "curves.png", dpi=120)
    table.caption = f"95 % intervals: {runs_interval(next(iter(accuracy.values()))).estimand}"
    Console(highlight=False).print(table, f"all files of this run: {folder}")

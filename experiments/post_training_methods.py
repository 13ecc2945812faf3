"""Which road leads a small model to reasoning, and what does it cost?

    python experiments/roads_to_reasoning.py
    python experiments/roads_to_reasoning.py --seeds 3 --roads hard,unfiltered,solutions

From one student, under one budget of tokens that go through updates: fine-tuning on written solutions, on its own
right answers (rejection sampling), on as many of a teacher's (hard distillation, verified and not), on the teacher's
probabilities (soft), on its opinion (on-policy), preferences (DPO), and reinforcement learning with the verifier
(GRPO). One table and one plot: accuracy with its interval, length of the answers, tokens, arithmetic, time. The student
is the model that answers without thinking aloud, the teacher the small reasoner that ships with it. About forty minutes
on two CPU cores for one seed; a road that is finished is not taken again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple

import distill
import dpo
import grpo_gsm8k
import numpy as np
import rejection_sampling
import sft
from rich.console import Console
from rich.table import Table

from jaxreason.errors import InputError
from jaxreason.evaluation import wilson_interval
from jaxreason.models import forward_flops
from jaxreason.runs import check_limits, main, presets, read_rows, with_defaults, write_csv
from jaxreason.weights import load_model

KEYS = 80  # tokens that one looks at, on average: with prompts of 50 and answers of 30 tokens


class Road(NamedTuple):
    experiment: ModuleType
    passes: int
    """Forward passes that a token read in an update costs: 3 for the update, 1 more for each time that the student, the
    teacher or a reference read or wrote it just for that update."""
    flags: Mapping[str, object] = MappingProxyType({})


def roads(cfg: "Config") -> dict[str, Road]:
    same = {"examples": cfg.examples}
    taught = {"teacher": cfg.teacher, **same}
    mixture = {"writers": f"{cfg.teacher},{cfg.student}", "kinds": f"{cfg.teacher} right>{cfg.student} wrong"}
    return {
        "solutions": Road(sft, 3, same),
        "rejection": Road(rejection_sampling, 3),
        "hard": Road(distill, 3, taught),
        "unfiltered": Road(distill, 3, taught | {"unfiltered": True}),
        "soft": Road(distill, 4, taught | {"how": "soft"}),
        "on-policy": Road(distill, 5, taught | {"how": "on-policy"}),
        "dpo": Road(dpo, 3, mixture),
        "grpo": Road(grpo_gsm8k, 5),
    }


@dataclass(frozen=True)
class Config:
    student: str = "tiny-base"  # as --model elsewhere
    teacher: str = "tiny"  # with the same vocabulary
    task: str = "grade-school"
    roads: str = ""  # names with commas between; empty: all of them
    examples: int = 1400  # that are learned of solutions and of what the teacher wrote
    token_budget: int = 400_000  # tokens that go through updates, prompts included
    seeds: int = 1  # how many, from 0 on
    eval_problems: int = 500
    out: str = "runs/roads_to_reasoning"
    smoke: bool = False  # a few steps of each


LIMITS = dict.fromkeys(("examples", "token_budget", "seeds", "eval_problems"), (1, inf))
PRESETS = presets(smoke={"token_budget": 500, "eval_problems": 4})


def run(cfg: Config) -> dict:
    check_limits(cfg, LIMITS)
    known, console = roads(cfg), Console(highlight=False)
    chosen = cfg.roads.split(",") if cfg.roads else list(known)
    if unknown := [name for name in chosen if name not in known]:
        raise InputError(f"--roads {unknown[0]!r} is unknown; choose among {', '.join(known)}")
    config, _, _ = load_model(cfg.student)
    flops, rows = partial(forward_flops, config, keys=KEYS), []
    for seed in range(cfg.seeds):
        for name in chosen:
            console.rule(f"{name}, seed {seed}")
            folder = Path(cfg.out) / f"{name}-{seed}"
            done = travelled(folder) or travel(cfg, known[name], folder, seed)
            tokens, written, seconds = spent(folder)
            arithmetic = known[name].passes * flops(tokens) + flops(written)
            after = done["after"]
            rows.append(
                {
                    "road": name,
                    "seed": seed,
                    "before": done["before"]["pass@1"],
                    "after": after["pass@1"],
                    "n": after["n"],
                    "length": after["length_mean"],
                    "train_tokens": tokens,
                    "tokens_written_before": written,
                    "teraflops": arithmetic / 1e12,
                    "seconds": seconds,
                }
            )
    write(rows, Path(cfg.out), console)
    return {"rows": rows}


def travel(cfg: Config, road: Road, folder: Path, seed: int) -> dict:
    common = {"model": cfg.student, "task": cfg.task, "seed": seed, "out": str(folder)}
    common |= {
        "token_budget": cfg.token_budget,
        "eval_problems": cfg.eval_problems,
        "steps": 10_000,
        "smoke": cfg.smoke,
    }
    flags = with_defaults(road.experiment.Config, road.experiment.PRESETS, **common, **road.flags)
    if road.experiment is rejection_sampling:  # its rounds share out the steps
        flags = replace(flags, steps=-(-cfg.token_budget // (flags.rows * flags.length)))
    return road.experiment.run(flags)


def travelled(folder: Path) -> dict | None:
    summary = folder / "summary.json"
    return json.loads(summary.read_text()) if summary.exists() else None


def spent(folder: Path) -> tuple[int, int, float]:
    """Tokens through updates, tokens of texts that were written before, and seconds of both."""
    steps, texts = (
        read_rows(file) if file.exists() else [] for file in (folder / "metrics.jsonl", folder / "written.jsonl")
    )
    seconds = sum(value for row in steps for name, value in row.items() if name.startswith("seconds_"))
    seconds += sum(row["seconds"] for row in texts)
    return sum(row["train_tokens"] for row in steps), int(sum(row["tokens"] for row in texts)), seconds


def write(rows: list[dict], folder: Path, console: Console) -> None:
    """The table of all seeds together, its numbers as CSV, and accuracy over arithmetic as a plot."""
    write_csv(folder / "roads.csv", rows)
    table = Table("road", "pass@1 [95 %]", "length", "tokens read", "written before", "TFLOP", "seconds")
    start = float(np.mean([row["before"] for row in rows]))
    table.add_row("none", f"{start:.1%}", "", "", "", "", "")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["road"] for row in rows):
        of = [row for row in rows if row["road"] == name]
        mean = {key: float(np.mean([row[key] for row in of])) for key in of[0] if key not in ("road", "seed")}
        n = sum(row["n"] for row in of)
        low, high = wilson_interval(round(sum(row["after"] * row["n"] for row in of)), n)
        counts = (f"{mean[key]:,.0f}" for key in ("train_tokens", "tokens_written_before"))
        costs = f"{mean['teraflops']:.1f}", f"{mean['seconds']:.0f}"
        table.add_row(name, f"{mean['after']:.1%} [{low:.1%}, {high:.1%}]", f"{mean['length']:.1f}", *counts, *costs)
        bar = [[mean["after"] - low], [high - mean["after"]]]
        axes.errorbar(mean["teraflops"], mean["after"], yerr=bar, fmt="o", capsize=3)
        axes.annotate(name, (mean["teraflops"], mean["after"]), xytext=(6, 4), textcoords="offset points")
    axes.axhline(start, color="gray", linestyle=":", label="the student before")
    axes.set(xlabel="TFLOP of training and writing", ylabel="held-out pass@1", ylim=(0, 1))
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(folder / "roads.png", dpi=120)
    console.print(table)


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

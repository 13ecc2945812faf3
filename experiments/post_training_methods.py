"""Which post-training method leads a small model to reasoning, and what does it cost?

    python experiments/post_training_methods.py
    python experiments/post_training_methods.py --seeds 3 --methods hard,unfiltered,solutions

From one student, under one budget of tokens that go through updates: fine-tuning on written solutions, on its own right
completions (rejection sampling), on as many of a teacher's (hard distillation, verified and not), on the teacher's
probabilities (soft), on its scores (on-policy), preferences (DPO), and reinforcement learning with the verifier (GRPO).
One table and one plot: accuracy with its interval, length of the completions, tokens, arithmetic, time. The student is
the model that answers directly, the teacher the small reasoner that is bundled with it. About forty minutes on two CPU
cores for one seed; a method that is finished is not run again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
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
from jaxreason.evaluation import runs_interval
from jaxreason.models import forward_flops
from jaxreason.runs import (
    check_limits,
    defaults,
    flag,
    main,
    problem_means,
    read_rows,
    run_experiment,
    with_defaults,
    write_csv,
)
from jaxreason.weights import load_model

KEYS = 80  # keys a token attends to, on average: prompts of 50 and completions of 30 tokens


class Method(NamedTuple):
    experiment: ModuleType
    passes: int
    """Forward passes that a training token costs: 3 for the update, 1 more for each time that the student, the teacher
    or a reference model scored or sampled it for that update alone."""
    flags: Mapping[str, object] = MappingProxyType({})


def methods(cfg: "Config") -> dict[str, Method]:
    same = {"examples": cfg.examples}
    taught = {"teacher": cfg.teacher, **same}
    mixture = {"generators": f"{cfg.teacher},{cfg.student}", "pair_types": f"{cfg.teacher} right>{cfg.student} wrong"}
    return {
        "solutions": Method(sft, 3, same),
        "rejection": Method(rejection_sampling, 3),
        "hard": Method(distill, 3, taught),
        "unfiltered": Method(distill, 3, taught | {"unfiltered": True}),
        "soft": Method(distill, 4, taught | {"method": "soft"}),
        "on-policy": Method(distill, 5, taught | {"method": "on-policy"}),
        "dpo": Method(dpo, 3, mixture),
        "grpo": Method(grpo_gsm8k, 5),
    }


@dataclass(frozen=True)
class Config:
    student: str = "tiny-base"  # as --model elsewhere
    teacher: str = "tiny"  # with the same vocabulary
    task: str = "grade-school"
    methods: str = ""  # names with commas between; empty: all of them
    examples: int = flag(1400, 1)  # that are learned of solutions and of what the teacher wrote
    token_budget: int = flag(400_000, 1)  # tokens that go through updates, prompts included
    seeds: int = flag(1, 1)  # number of seeds, from 0 on
    eval_problems: int = flag(500, 1)
    out: str = "runs/post_training_methods"
    smoke: bool = False  # a few steps of each


flag_defaults = defaults(smoke={"token_budget": 500, "eval_problems": 4})


def run(cfg: Config) -> dict:
    check_limits(cfg)
    known, console = methods(cfg), Console(highlight=False)
    chosen = cfg.methods.split(",") if cfg.methods else list(known)
    if unknown := [name for name in chosen if name not in known]:
        raise InputError(f"--methods {unknown[0]!r} is unknown; choose among {', '.join(known)}")
    config, _, _ = load_model(cfg.student)
    flops, rows, accuracy = partial(forward_flops, config, keys=KEYS), [], {name: [] for name in chosen}
    for seed in range(cfg.seeds):
        for name in chosen:
            console.rule(f"{name}, seed {seed}")
            folder = Path(cfg.out) / f"{name}-{seed}"
            done = run_method(cfg, known[name], folder, seed)
            tokens, written, seconds = spent(folder)
            arithmetic = known[name].passes * flops(tokens) + flops(written)
            after = done["after"]
            accuracy[name].append(problem_means(folder, grade="strict"))
            rows.append(
                {
                    "method": name,
                    "seed": seed,
                    "before": done["before"]["pass@1"],
                    "after": after["pass@1"],
                    "n": after["n"],
                    "length": after["length_mean"],
                    "train_tokens": tokens,
                    "tokens_generated_before": written,
                    "teraflops": arithmetic / 1e12,
                    "seconds": seconds,
                }
            )
    write(rows, accuracy, Path(cfg.out), console)
    return {"rows": rows}


def run_method(cfg: Config, method: Method, folder: Path, seed: int) -> dict:
    steps = 10_000  # the budget of tokens ends it
    if method.experiment is rejection_sampling:  # its rounds share out the steps
        own = with_defaults(rejection_sampling.Config, rejection_sampling.flag_defaults, smoke=cfg.smoke).rounds
        steps = -(-cfg.token_budget // (own.rows * own.seq_len))
    return run_experiment(
        method.experiment,
        folder,
        model=cfg.student,
        task=cfg.task,
        seed=seed,
        token_budget=cfg.token_budget,
        eval_problems=cfg.eval_problems,
        steps=steps,
        smoke=cfg.smoke,
        **method.flags,
    )


def spent(folder: Path) -> tuple[int, int, float]:
    """Tokens through updates, tokens sampled before training, and seconds of both."""
    steps, texts = (
        read_rows(file) if file.exists() else [] for file in (folder / "metrics.jsonl", folder / "generated.jsonl")
    )
    seconds = sum(row["seconds_step"] for row in steps)
    seconds += sum(row["seconds"] for row in texts)
    return sum(row["train_tokens"] for row in steps), int(sum(row["tokens"] for row in texts)), seconds


def write(rows: list[dict], accuracy: Mapping[str, list[np.ndarray]], folder: Path, console: Console) -> None:
    """The table of all seeds together, its numbers as CSV, and accuracy over arithmetic as a plot. `accuracy`: of every
    held-out problem, by method and seed."""
    write_csv(folder / "methods.csv", rows)
    table = Table("method", "pass@1 [95 %]", "length", "train tokens", "generated before", "TFLOP", "seconds")
    start = float(np.mean([row["before"] for row in rows]))
    table.add_row("none", f"{start:.1%}", "", "", "", "", "")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["method"] for row in rows):
        of = [row for row in rows if row["method"] == name]
        mean = {key: float(np.mean([row[key] for row in of])) for key in of[0] if key not in ("method", "seed")}
        after = runs_interval(accuracy[name])
        counts = (f"{mean[key]:,.0f}" for key in ("train_tokens", "tokens_generated_before"))
        costs = f"{mean['teraflops']:.1f}", f"{mean['seconds']:.0f}"
        table.add_row(name, str(after), f"{mean['length']:.1f}", *counts, *costs)
        axes.errorbar(mean["teraflops"], after.mean, yerr=after.errors, fmt="o", capsize=3)
        table.caption = f"95 % intervals: {after.estimand}"
        axes.annotate(name, (mean["teraflops"], mean["after"]), xytext=(6, 4), textcoords="offset points")
    axes.axhline(start, color="gray", linestyle=":", label="student before training")
    axes.set(xlabel="TFLOP of training and sampling", ylabel="held-out pass@1 (95 %)", ylim=(0, 1))
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(folder / "methods.png", dpi=120)
    console.print(table)


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

"""What does reinforcement learning select, and when is it slow to?

    python experiments/pattern_selection.py
    python experiments/pattern_selection.py --starts as-is --model smollm2-135m --task gsm8k --data DATA --steps 20

A model is taught three ways of solving the same problems, with known shares and different success: the answer at once,
equations (half of them with a slip), steps with a check. Then it is reinforced: from a good start, whose accuracy
exceeds the success of every way but the best; from a poor one, where a rival succeeds more often than that; from the
poor one after a little fine-tuning on the best way; and from the good one with rewards from inside the model. Shares
and success by way, the exact decomposition of what accuracy gained, and the theory of pattern selection (arXiv
2506.04695) laid over it. Any other model is reinforced as it is. About an hour for three seeds on two CPU cores;
what is finished is not done again.
"""

import csv
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from pathlib import Path

import grpo_gsm8k
import numpy as np
import sft
from pattern_pictures import plot_arrows, plot_overlay
from rich.console import Console
from rich.table import Table

from jaxreason.errors import InputError
from jaxreason.patterns import LABELLERS, decompose, labelled, patterns_of
from jaxreason.patterns.theory import Fit, overlay, regime
from jaxreason.runs import check_limits, choose, filled, main, presets, read_rows, write_text
from jaxreason.tasks import load_task, messages
from jaxreason.tasks.grade_school import (
    WordProblem,
    answer_alone,
    bare_equations,
    checked_steps,
    with_answer,
    word_problems,
)

BEST = "checked steps"
STARTS = {  # shares of the ways that are taught
    "good": {"answer only": 0.30, "equations": 0.35, BEST: 0.35},
    "poor": {"answer only": 0.25, "equations": 0.72, BEST: 0.03},
    "cured": {BEST: 1.0},  # after the poor one
}
SLIPS = 0.5  # share of the taught equations whose last result is wrong


@dataclass(frozen=True)
class Config:
    model: str = "tiny-base"  # what is taught, or with --starts as-is reinforced
    task: str = "grade-school"
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    starts: str = "good,poor,cured"  # or as-is
    rewards: str = "lenient"  # the good start also with others, as lenient,self-certainty,majority
    patterns: str = "structural"  # how texts are sorted
    lessons: int = 4000
    teaching_steps: int = 300
    cure_lessons: int = 100
    cure_steps: int = 20
    steps: int = 60  # of reinforcement
    algorithm: str = "dr_grpo"  # its advantages are those of the theory; any of grpo_gsm8k.py
    learning_rate: float = 1e-4
    eval_problems: int = 500
    eval_samples: int = 2
    seeds: int = 1  # how many, from 0 on
    out: str = "runs/pattern_selection"
    smoke: bool = False  # a few steps of everything


LIMITS = dict.fromkeys(("lessons", "teaching_steps", "cure_lessons", "cure_steps", "steps", "seeds"), (1, inf))
LIMITS |= dict.fromkeys(("eval_problems", "eval_samples"), (1, inf)) | {"learning_rate": (1e-12, 1)}
FEW = {"lessons": 24, "teaching_steps": 2, "cure_lessons": 4, "cure_steps": 2, "steps": 3, "eval_problems": 8}
PRESETS = presets(real={"learning_rate": 1e-5, "eval_problems": 100}, smoke=FEW)


def run(cfg: Config) -> list[dict]:
    check_limits(cfg, LIMITS)
    labeller, console = choose("patterns", cfg.patterns, LABELLERS), Console(highlight=False)
    starts, rewards = cfg.starts.split(","), cfg.rewards.split(",")
    for start in starts:
        choose("starts", start, STARTS | {"as-is": None})
    if starts != ["as-is"] and not cfg.task.startswith("grade-school"):
        raise InputError(f"--task {cfg.task} has no ways to teach: give --starts as-is")
    rows, runs = [], {}
    for seed in range(cfg.seeds):
        for start in starts:
            for reward in rewards if start == starts[0] else rewards[:1]:
                console.rule(f"{start} start, reward {reward}, seed {seed}")
                folder = Path(cfg.out) / f"{start}-{reward}-{seed}"
                reinforced(cfg, start, reward, folder, seed)
                runs[start, reward, seed] = told = Told(folder, labeller, cfg)
                rows.append({"start": start, "reward": reward, "seed": seed, **told.row()})
                console.print(*told.words(), sep="\n")
    report(rows, runs, Path(cfg.out), console)
    return rows


def reinforced(cfg: Config, start: str, reward: str, folder: Path, seed: int) -> None:
    if (folder / "summary.json").exists():
        return
    flags = {"model": taught(cfg, start, seed), "task": cfg.task, "data": cfg.data, "seed": seed, "out": str(folder)}
    flags |= {"algorithm": cfg.algorithm, "reward": reward, "steps": cfg.steps, "patterns": cfg.patterns}
    flags |= {"learning_rate": cfg.learning_rate, "kl_weight": 0.0, "eval_every": 0, "smoke": cfg.smoke}
    flags |= {"eval_problems": cfg.eval_problems, "eval_samples": cfg.eval_samples}
    shipped = {} if start == "as-is" else OWN_SIZES
    grpo_gsm8k.run(filled(grpo_gsm8k.Config, grpo_gsm8k.PRESETS, **(shipped if not cfg.smoke else {}) | flags))


OWN_SIZES = {"max_tokens": 72, "prompts_per_step": 32, "update_memory": 0.075, "save_every": 20}


def taught(cfg: Config, start: str, seed: int) -> str:
    """The model of a start."""
    if start == "as-is":
        return cfg.model
    out = Path(cfg.out) / f"{start}-taught-{seed}"
    if not (out / "model").exists():
        poor = start == "cured"
        count, steps = (cfg.cure_lessons, cfg.cure_steps) if poor else (cfg.lessons, cfg.teaching_steps)
        file = Path(cfg.out) / f"{start}-lessons-{seed}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(islice(written(cfg, STARTS[start], f"{start} {seed}"), count)))
        model = taught(cfg, "poor", seed) if poor else cfg.model
        flags = {"model": model, "task": cfg.task, "data": cfg.data, "lessons": str(file), "steps": steps}
        flags |= {"seed": seed, "out": str(out), "export": True, "eval_problems": min(cfg.eval_problems, 100)}
        flags |= {"learning_rate": 5e-4, "length": 160, "max_tokens": 72, "smoke": cfg.smoke}
        sft.run(filled(sft.Config, sft.PRESETS, **flags))
    return str(out / "model")


def written(cfg: Config, shares: Mapping[str, float], seed: str) -> Iterator[str]:
    """Lessons as JSONL, each in a way that is drawn by its share."""
    rng, task = random.Random(seed), load_task(cfg.task)
    for problem in word_problems(seed):
        (way,) = rng.choices(list(shares), shares.values())
        prompt = messages(task, replace(task.train[0], question=problem.question))
        yield json.dumps({"prompt": prompt, "completion": solution(problem, way, rng)}) + "\n"


def solution(problem: WordProblem, way: str, rng: random.Random) -> str:
    if way == "answer only":
        return with_answer(answer_alone(problem), problem.answer)
    if way == BEST:
        return with_answer(checked_steps(problem), problem.answer)
    if rng.random() < SLIPS:
        last = problem.steps[-1]
        wrong = max(1, last.result + rng.choice([-2, -1, 1, 2]))
        problem = problem._replace(steps=(*problem.steps[:-1], last._replace(result=wrong)))
    return with_answer(bare_equations(problem), problem.answer)


class Told:
    """What a run tells: its patterns before and after, why accuracy changed, what the theory expects."""

    def __init__(self, folder: Path, labeller, cfg: Config):
        sets = (json.loads((folder / f"{when}.json").read_text())["held-out"] for when in ("before", "after"))
        self.before, self.after = (labelled(each["samples"], labeller) for each in sets)
        names = list(patterns_of(self.before) | patterns_of(self.after))
        self.patterns = {when: patterns_of(getattr(self, when), names) for when in ("before", "after")}
        self.terms = decompose(self.before, self.after)
        self.steps = read_rows(folder / "metrics.jsonl")
        common = [name for name in names if max(p[name].share for p in self.patterns.values()) >= 0.02]
        self.best = max(common, key=lambda name: np.nan_to_num(self.patterns["before"][name].success))
        self.names, self.regime, self.fit = common, None, None
        if len(common) > 1:
            start = [max(self.patterns["before"][name].share, 1e-3) for name in common]
            self.success = np.nan_to_num([self.patterns["before"][name].success for name in common])
            shares = np.array([self.shares(name) for name in common]).T
            self.regime = regime(np.array(start) / sum(start), self.success)
            kept = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
            self.fit: Fit | None = overlay([row["step"] for row in self.steps], kept, self.success)

    def shares(self, name: str) -> list[float]:
        """Over training."""
        return [row.get(f"pattern_{name.replace(' ', '_')}_share", 0.0) for row in self.steps]

    def until(self, share: float = 0.8) -> float:
        """The first step from which on, for five steps, the best pattern holds a share; infinite if none does."""
        held = np.convolve(self.shares(self.best), np.ones(5) / 5, mode="valid") >= share
        return float(np.argmax(held) + 1) if held.any() else inf

    def row(self) -> dict:
        before, after = (self.patterns[when][self.best] for when in ("before", "after"))
        accuracy = {when: float(getattr(self, when).right.mean()) for when in ("before", "after")}
        terms = self.terms._asdict()
        intervals = terms.pop("intervals")
        limits = {f"{name}_{end}": intervals[name][i] for name in terms for i, end in enumerate(("low", "high"))}
        best = {"best": self.best, "share_before": before.share, "share_after": after.share}
        best |= {"success_before": before.success, "success_after": after.success, "until_80": self.until()}
        theory = {"regime": self.regime.kind, "speed": self.fit.speed, "misfit": self.fit.error} if self.fit else {}
        return accuracy | best | terms | limits | theory

    def words(self) -> Iterator[str]:
        table = Table("pattern", "share before", "after", "success before", "after")
        for name in self.names:
            both = [self.patterns[when][name] for when in ("before", "after")]
            table.add_row(name, *(percent(p.share, p.share_interval) for p in both), *(success(p) for p in both))
        yield table
        terms, limits = self.terms, self.terms.intervals
        parts = ", ".join(
            f"{name} {getattr(terms, name):+.1%} [{limits[name][0]:+.1%}, {limits[name][1]:+.1%}]"
            for name in ("selection", "execution", "interaction")
        )
        yield f"accuracy {terms.total:+.1%}: {parts}"
        if self.regime:
            yield f"the start is {self.regime.kind}; {self.best} holds 80 % from step {self.until():.0f} on"


def percent(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"


def success(pattern) -> str:
    return percent(pattern.success, pattern.success_interval) if pattern.count else ""


def report(rows: list[dict], runs: Mapping, folder: Path, console: Console) -> None:
    with (folder / "selection.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)
    table = Table(
        "start", "reward", "seed", "accuracy", "best pattern", "its share", "80 % at", "of the gain, selection"
    )
    for row in rows:
        pairs = (f"{row[f'{x}before']:.1%} to {row[f'{x}after']:.1%}" for x in ("", "share_"))
        accuracy, share = pairs
        part = f"{row['selection'] / row['total']:.0%}" if row["total"] > 0 else "no gain"
        table.add_row(
            row["start"], row["reward"], str(row["seed"]), accuracy, row["best"], share, f"{row['until_80']:.0f}", part
        )
    console.print(table)
    plot_arrows(runs, folder / "arrows.png")
    plot_overlay({key: told for key, told in runs.items() if told.fit}, folder / "theory.png")
    console.print(f"everything of this run: {folder}")


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""What does reinforcement learning select, and when is it slow to?

    python experiments/pattern_selection.py
    python experiments/pattern_selection.py --starts as-is --model smollm2-135m --task gsm8k --data DATA --steps 20

A model is taught three ways of answering the same problems: giving up, the answer at once, steps with a check; then to
take each with a known share. Then it is reinforced: from a good start, whose accuracy exceeds the success of every way
but the best; from a poor one, where a rival succeeds more often than that; from the poor one after a little fine-tuning
on the best way; and, with --rewards, from the good one by rewards from inside the model. Shares and success by way, the
exact decomposition of what accuracy gained, and the theory of pattern selection (arXiv 2506.04695) laid over it. Any
other model is reinforced as it is. A quarter of an hour a seed on two CPU cores; what is finished is not done again.
"""

import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from pathlib import Path

import grpo_gsm8k
import sft
from pattern_selection.plots import plot_arrows, plot_curves, plot_overlay
from pattern_selection.run_analysis import Told
from rich.console import Console
from rich.table import Table

from jaxreason.analysis import LABELLERS, discovered
from jaxreason.errors import InputError
from jaxreason.runs import check_limits, choose, main, presets, with_defaults, write_csv, write_text
from jaxreason.tasks import Task, load_task, messages
from jaxreason.tasks.grade_school import (
    DIFFICULTIES,
    WordProblem,
    answer_alone,
    checked_steps,
    with_answer,
    word_problems,
)

BEST, RIVAL, WORST = "checked steps", "answer only", "prose"
STARTS = {  # shares of the ways that are taught
    "school": {WORST: 1 / 3, RIVAL: 1 / 3, BEST: 1 / 3},
    "good": {WORST: 0.25, RIVAL: 0.30, BEST: 0.45},
    "poor": {WORST: 0.25, RIVAL: 0.72, BEST: 0.03},
    "cured": {BEST: 1.0},
}
FROM = {"good": "school", "poor": "school", "cured": "poor"}  # what each is taught after
SIZES = {"max_tokens": 72, "prompts_per_step": 32, "update_memory": 0.075, "save_every": 20}  # of what is taught


@dataclass(frozen=True)
class Config:
    model: str = "tiny-base"  # what is taught, or with --starts as-is reinforced
    task: str = "grade-school:easy"  # one step or two: there the answer at once has a chance
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    starts: str = "good,poor,cured"  # or as-is
    rewards: str = "lenient"  # the good start also with others, as lenient,self-certainty,majority
    patterns: str = "structural"  # how texts are sorted: also cognitive
    discover: int = 0  # sort them also into so many clusters of the start's own texts (extra patterns); 0: do not
    lessons: int = 4000
    school_steps: int = 300  # in which every way is learned
    share_steps: int = 60  # in which its share is
    cure_lessons: int = 100
    cure_steps: int = 20
    steps: int = 120  # of reinforcement
    algorithm: str = "dr_grpo"  # its advantages are those of the theory; any of grpo_gsm8k.py
    learning_rate: float = 1e-4
    eval_problems: int = 250
    eval_samples: int = 8
    seeds: int = 1  # how many, from 0 on
    out: str = "runs/pattern_selection"
    smoke: bool = False  # a few steps of everything


LIMITS = dict.fromkeys(
    ("lessons", "school_steps", "share_steps", "cure_lessons", "cure_steps", "steps", "seeds"), (1, inf)
)
LIMITS |= dict.fromkeys(("eval_problems", "eval_samples"), (1, inf)) | {
    "learning_rate": (1e-12, 1),
    "discover": (0, inf),
}
FEW = {
    "lessons": 24,
    "school_steps": 2,
    "share_steps": 2,
    "cure_lessons": 4,
    "cure_steps": 2,
    "steps": 3,
    "eval_problems": 8,
}
PRESETS = presets(real={"learning_rate": 1e-5, "eval_problems": 100}, smoke=FEW)


def run(cfg: Config) -> list[dict]:
    check_limits(cfg, LIMITS)
    labeller, console = choose("patterns", cfg.patterns, LABELLERS), Console(highlight=False)
    starts, rewards = cfg.starts.split(","), cfg.rewards.split(",")
    for start in starts:
        choose("starts", start, STARTS | {"as-is": None})
    if starts != ["as-is"] and not cfg.task.startswith("grade-school"):
        raise InputError(f"--task {cfg.task} has no ways to teach: give --starts as-is")
    task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    rows, runs = [], {}
    for seed in range(cfg.seeds):
        for start in starts:
            for reward in rewards if start == starts[0] else rewards[:1]:
                console.rule(f"{start} start, reward {reward}, seed {seed}")
                folder = Path(cfg.out) / f"{start}-{reward}-{seed}"
                model = taught(cfg, task, start, seed)
                reinforced(cfg, model, reward, folder, seed)
                runs[start, reward, seed] = told = Told(folder, model, task, labeller)
                rows.append({"start": start, "reward": reward, "seed": seed, **told.row()})
                console.print(*told.words(), sep="\n")
                if cfg.discover:
                    found = discovered([sample["completion"] for sample in told.samples[0]], cfg.discover, seed=seed)
                    console.print(
                        "found in the start's own texts:", *Told(folder, model, task, found).words(), sep="\n"
                    )
    report(rows, runs, Path(cfg.out), console)
    return rows


def reinforced(cfg: Config, model: str, reward: str, folder: Path, seed: int) -> None:
    if (folder / "summary.json").exists():
        return
    flags = {"model": model, "task": cfg.task, "data": cfg.data, "seed": seed, "out": str(folder), "export": True}
    flags |= {"algorithm": cfg.algorithm, "reward": reward, "steps": cfg.steps, "patterns": cfg.patterns}
    flags |= {"learning_rate": cfg.learning_rate, "kl_weight": 0.0, "eval_every": 0, "smoke": cfg.smoke}
    flags |= {"eval_problems": cfg.eval_problems, "eval_samples": cfg.eval_samples}
    flags |= {} if model == cfg.model or cfg.smoke else SIZES
    grpo_gsm8k.run(with_defaults(grpo_gsm8k.Config, grpo_gsm8k.PRESETS, **flags))


def taught(cfg: Config, task: Task, start: str, seed: int) -> str:
    """The model of a start."""
    if start == "as-is":
        return cfg.model
    out = Path(cfg.out) / f"{start}-taught-{seed}"
    if not (out / "model").exists():
        count = cfg.cure_lessons if start == "cured" else cfg.lessons
        steps = {"school": cfg.school_steps, "cured": cfg.cure_steps}.get(start, cfg.share_steps)
        file = Path(cfg.out) / f"{start}-lessons-{seed}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(islice(written(task, STARTS[start], f"{start} {seed}"), count)))
        model = taught(cfg, task, FROM[start], seed) if start in FROM else cfg.model
        flags = {"model": model, "task": cfg.task, "data": cfg.data, "lessons": str(file), "steps": steps}
        flags |= {"seed": seed, "out": str(out), "export": True, "eval_problems": min(cfg.eval_problems, 100)}
        flags |= {"learning_rate": 5e-4, "length": 160, "max_tokens": 72, "smoke": cfg.smoke}
        sft.run(with_defaults(sft.Config, sft.PRESETS, **flags))
    return str(out / "model")


def written(task: Task, shares: Mapping[str, float], seed: str) -> Iterator[str]:
    """Lessons as JSONL, each in a way that is drawn by its share."""
    rng, difficulty = random.Random(seed), DIFFICULTIES[task.name.partition(":")[2] or "medium"]
    for problem in word_problems(seed, difficulty):
        (way,) = rng.choices(list(shares), shares.values())
        prompt = messages(task, replace(task.train[0], question=problem.question))
        yield json.dumps({"prompt": prompt, "completion": solution(problem, way)}) + "\n"


def solution(problem: WordProblem, way: str) -> str:
    """In ways whose success is the model's own: an error that is put into texts would be one more choice, which
    reinforcement takes back."""
    written = {
        WORST: "I cannot tell.",
        RIVAL: with_answer(answer_alone(problem), problem.answer),
        BEST: with_answer(checked_steps(problem), problem.answer),
    }
    return written[way]


def report(rows: list[dict], runs: Mapping, folder: Path, console: Console) -> None:
    write_csv(folder / "selection.csv", rows)
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
    plot_curves(runs, folder / "pass_at_k.png")
    console.print(f"everything of this run: {folder}")


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""What does reinforcement learning select, and when is it slow to?

    python experiments/pattern_selection.py
    python experiments/pattern_selection.py --starts as-is --model smollm2-135m --task gsm8k --data DATA --steps 20

A model is fine-tuned on three patterns of answering the same problems: giving up, a direct answer, steps with a check;
then on a mixture with known shares. Then it is reinforced: from a good start, whose accuracy exceeds the success of
every pattern but the best; from a poor one, where a rival succeeds more often than that; from the poor one after a
warm start on the best pattern; and, with --rewards, from the good one by intrinsic rewards. Shares and success by
pattern, the exact decomposition of the gain in accuracy, and the fitted theory of pattern selection (arXiv 2506.04695).
Any other model is reinforced as it is. A quarter of an hour a seed on two CPU cores; what is finished is not run again.
"""

import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import grpo_gsm8k
import sft
from pattern_selection.plots import plot_arrows, plot_curves, plot_theory
from pattern_selection.run_analysis import RunAnalysis
from rich.console import Console
from rich.table import Table

from jaxreason.analysis import LABELLERS, cluster_labeller
from jaxreason.errors import InputError
from jaxreason.runs import check_limits, choose, defaults, flag, main, run_experiment, write_csv, write_text
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
STARTS = {  # shares of the patterns in the SFT examples
    "mixed_sft": {WORST: 1 / 3, RIVAL: 1 / 3, BEST: 1 / 3},
    "good": {WORST: 0.25, RIVAL: 0.30, BEST: 0.45},
    "poor": {WORST: 0.25, RIVAL: 0.72, BEST: 0.03},
    "warm_start": {BEST: 1.0},
}
FROM = {"good": "mixed_sft", "poor": "mixed_sft", "warm_start": "poor"}  # the start that each goes on from
SEED_WORDS = {"mixed_sft": "school", "warm_start": "cured"}  # what the published runs drew their examples with
SIZES = {
    "max_tokens": 72,
    "prompts_per_step": 32,
    "activation_gb": 0.075,
    "save_every": 20,
}  # of the reinforcement of bundled sizes


@dataclass(frozen=True)
class Config:
    model: str = "tiny-base"  # fine-tuned on patterns, or with --starts as-is reinforced
    task: str = "grade-school:easy"  # one step or two: there a direct answer has a chance
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    starts: str = "good,poor,warm_start"  # or as-is
    rewards: str = "lenient"  # the good start also with others, as lenient,self-certainty,majority
    patterns: str = "structural"  # the labeller: also cognitive
    discover: int = flag(0, 0)  # label also by so many clusters of the start's completions (extra patterns); 0: no
    sft_examples: int = flag(4000, 1)
    mixed_sft_steps: int = flag(300, 1)  # SFT on all patterns
    share_steps: int = flag(60, 1)  # SFT on the shares of a start
    warm_start_examples: int = flag(100, 1)
    warm_start_steps: int = flag(20, 1)
    steps: int = flag(120, 1)  # of reinforcement
    algorithm: str = "dr_grpo"  # its advantages are those of the theory; any of grpo_gsm8k.py
    learning_rate: float = flag(1e-4, 1e-12, 1)
    eval_problems: int = flag(250, 1)
    eval_samples: int = flag(8, 1)
    seeds: int = flag(1, 1)  # number of seeds, from 0 on
    out: str = "runs/pattern_selection"
    smoke: bool = False  # a few steps of everything


FEW = {
    "sft_examples": 24,
    "mixed_sft_steps": 2,
    "share_steps": 2,
    "warm_start_examples": 4,
    "warm_start_steps": 2,
    "steps": 3,
    "eval_problems": 8,
}
flag_defaults = defaults(pretrained={"learning_rate": 1e-5, "eval_problems": 100}, smoke=FEW)


def run(cfg: Config) -> list[dict]:
    check_limits(cfg)
    labeller, console = choose("patterns", cfg.patterns, LABELLERS), Console(highlight=False)
    starts, rewards = cfg.starts.split(","), cfg.rewards.split(",")
    for start in starts:
        choose("starts", start, STARTS | {"as-is": None})
    if starts != ["as-is"] and not cfg.task.startswith("grade-school"):
        raise InputError(f"--task {cfg.task} has no patterns to teach: give --starts as-is")
    task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    rows, runs = [], {}
    for seed in range(cfg.seeds):
        for start in starts:
            for reward in rewards if start == starts[0] else rewards[:1]:
                console.rule(f"{start} start, reward {reward}, seed {seed}")
                folder = Path(cfg.out) / f"{start}-{reward}-{seed}"
                model = fine_tuned(cfg, task, start, seed)
                train_policy(cfg, model, reward, folder, seed)
                runs[start, reward, seed] = analysis = RunAnalysis(folder, model, task, labeller)
                rows.append({"start": start, "reward": reward, "seed": seed, **analysis.row()})
                console.print(*analysis.describe(), sep="\n")
                if cfg.discover:
                    discovered = cluster_labeller(
                        [sample["completion"] for sample in analysis.samples[0]], cfg.discover, seed=seed
                    )
                    clusters = RunAnalysis(folder, model, task, discovered)
                    console.print("clusters of the start's own completions:", *clusters.describe(), sep="\n")
    report(rows, runs, Path(cfg.out), console)
    return rows


def train_policy(cfg: Config, model: str, reward: str, folder: Path, seed: int) -> None:
    flags = {"model": model, "task": cfg.task, "data": cfg.data, "seed": seed, "export": True}
    flags |= {"algorithm": cfg.algorithm, "reward": reward, "steps": cfg.steps, "patterns": cfg.patterns}
    flags |= {"learning_rate": cfg.learning_rate, "kl_weight": 0.0, "eval_every": 0, "smoke": cfg.smoke}
    flags |= {"eval_problems": cfg.eval_problems, "eval_samples": cfg.eval_samples}
    flags |= {} if model == cfg.model or cfg.smoke else SIZES
    run_experiment(grpo_gsm8k, folder, **flags)


def fine_tuned(cfg: Config, task: Task, start: str, seed: int) -> str:
    """The model of a start, fine-tuned where that is not done yet."""
    if start == "as-is":
        return cfg.model
    out = Path(cfg.out) / f"{start}-sft-{seed}"
    if not (out / "summary.json").exists():
        count = cfg.warm_start_examples if start == "warm_start" else cfg.sft_examples
        steps = {"mixed_sft": cfg.mixed_sft_steps, "warm_start": cfg.warm_start_steps}.get(start, cfg.share_steps)
        file = Path(cfg.out) / f"{start}-examples-{seed}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = sft_lines(task, STARTS[start], f"{SEED_WORDS.get(start, start)} {seed}")
        write_text(file, "".join(islice(lines, count)))
        model = fine_tuned(cfg, task, FROM[start], seed) if start in FROM else cfg.model
        flags = {"model": model, "task": cfg.task, "data": cfg.data, "train_file": str(file), "steps": steps}
        flags |= {"seed": seed, "export": True, "eval_problems": min(cfg.eval_problems, 100)}
        flags |= {"learning_rate": 5e-4, "seq_len": 160, "max_tokens": 72, "smoke": cfg.smoke}
        run_experiment(sft, out, **flags)
    return str(out / "model")


def sft_lines(task: Task, shares: Mapping[str, float], seed: str) -> Iterator[str]:
    """SFT examples as JSONL lines, each in a pattern drawn by its share."""
    rng, difficulty = random.Random(seed), DIFFICULTIES[task.name.partition(":")[2] or "medium"]
    for problem in word_problems(seed, difficulty):
        (pattern,) = rng.choices(list(shares), shares.values())
        prompt = messages(task, replace(task.train[0], question=problem.question))
        yield json.dumps({"prompt": prompt, "completion": solution(problem, pattern)}) + "\n"


def solution(problem: WordProblem, pattern: str) -> str:
    """Patterns whose success is the model's own: an error planted in the examples would be one more choice, which
    reinforcement takes back."""
    completions = {
        WORST: "I cannot tell.",
        RIVAL: with_answer(answer_alone(problem), problem.answer),
        BEST: with_answer(checked_steps(problem), problem.answer),
    }
    return completions[pattern]


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
    plot_theory({key: analysis for key, analysis in runs.items() if analysis.fit}, folder / "theory.png")
    plot_curves(runs, folder / "pass_at_k.png")
    console.print(f"all files of this run: {folder}")


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

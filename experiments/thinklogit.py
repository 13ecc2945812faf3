"""Can a small reasoner lend its reasoning to a large model that never learned to reason?

    python experiments/thinklogit.py
    python experiments/thinklogit.py --target smollm2-135m --guide tiny --base tiny-base --mapped text

ThinkLogit (arXiv 2507.12759, 2510.09354): while it decodes, the target's logits are moved by what the guide has over
the base it was made from. Beside it: the target and the guide alone; ThinkLogit-DPO, where the guide first learns from
pairs of what both wrote on training problems; and, as the bound, the target fine-tuned on the guide's right solutions.
Warm-up W and strength alpha are chosen on training problems that nothing else uses. With the models that ship with the
package a seed takes about ten minutes on two CPU cores. Interrupted, the same command goes on.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from math import inf
from pathlib import Path

import distill
import dpo
import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from thinklogit.plots import plot_guidance, plot_rows, plot_sweep

from jaxreason.analysis import words_per_thousand
from jaxreason.errors import InputError
from jaxreason.evaluation import evaluate
from jaxreason.inference import InferenceModel, load_inference_model
from jaxreason.runs import RunFolder, check_limits, choose, main, presets, with_defaults, write_csv
from jaxreason.sampling import Sampling
from jaxreason.tasks import Problem, load_task, messages
from jaxreason.training import EVALUATION

MIXTURES = {  # better>worse: the published ablation
    "mixed": "{guide} right>{target} wrong,{target} right>{guide} wrong",
    "guide-target": "{guide} right>{target} wrong",
    "target-guide": "{target} right>{guide} wrong",
    "guide": "{guide} right>{guide} wrong",
    "all": "{guide} right>{target} wrong,{target} right>{guide} wrong,{guide} right>{guide} wrong",
}


@dataclass(frozen=True)
class Config:
    target: str = "tiny-large-base"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    guide: str = "tiny"  # a small reasoner
    base: str = "tiny-base"  # what it was made from
    mapped: str = ""  # tokens of target and guide, if they differ: text, or a JSON file of tokens
    task: str = "grade-school"
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    warmups: str = "0,1,4"  # W: tokens that the target writes alone
    alphas: str = "0.5,0.75,1,1.25,1.5"
    sweep_problems: int = 200  # training problems on which W and alpha are chosen
    problems: int = 1000  # training problems that guide and target answer, for pairs
    pairs: str = "mixed"  # which answers are preferred to which: mixed, guide-target, target-guide, guide or all
    dpo_steps: int = 60  # of the guide
    dpo_rate: float = 2e-5  # learning rate
    lora_rank: int = 0  # of the guide's adapters; 0: all of it is trained
    tuned_problems: int = 4000  # training problems that the guide answers, for the target to be fine-tuned on
    tuned_steps: int = 400
    tuned_rate: float = 2e-4  # learning rate
    eval_problems: int = 500
    samples: int = 8  # answers to each
    max_tokens: int = 72
    temperature: float = 1.0
    top_p: float = 1.0
    rows: int = 256  # completions side by side
    seeds: int = 1  # how many, from 0 on
    out: str = "runs/thinklogit"
    smoke: bool = False  # a few problems and steps of everything


COUNTS = ("sweep_problems", "problems", "dpo_steps", "tuned_problems", "tuned_steps", "eval_problems", "samples")
LIMITS = dict.fromkeys((*COUNTS, "max_tokens", "rows", "seeds"), (1, inf)) | {"lora_rank": (0, inf)}
LIMITS |= {"dpo_rate": (1e-12, 1), "tuned_rate": (1e-12, 1)}
FEW = {"sweep_problems": 4, "problems": 24, "dpo_steps": 2, "eval_problems": 4, "samples": 2}
FEW |= {"tuned_problems": 24, "tuned_steps": 2}
PRESETS = presets(smoke=FEW | {"warmups": "0", "alphas": "0.5,1"})


def run(cfg: Config) -> list[dict]:
    check_limits(cfg, LIMITS)
    choose("pairs", cfg.pairs, MIXTURES)
    grid, console = list(product(numbers(cfg, "warmups", int), numbers(cfg, "alphas", float))), Console(highlight=False)
    rows, sweeps = [], []
    for seed in range(cfg.seeds):
        console.rule(f"seed {seed}")
        own_rows, own_sweep = compared(cfg, seed, grid, console)
        rows += own_rows
        sweeps += own_sweep
    folder = Path(cfg.out)
    for name, lines in {"rows": rows, "sweep": sweeps}.items():
        write_csv(folder / f"{name}.csv", lines)
    plot_sweep(sweeps, folder / "sweep.png")
    plot_rows(rows, folder / "rows.png")
    console.print(table(rows), f"everything of this run: {folder}")
    return rows


def numbers(cfg: Config, name: str, kind: type) -> list:
    try:
        found = [kind(text) for text in getattr(cfg, name).split(",")]
    except ValueError:
        found = [inf]
    if not all(0 <= number < inf for number in found):
        raise InputError(f"--{name} {getattr(cfg, name)!r}: give numbers of at least 0 with commas between, as 0,1,4")
    return found


def compared(cfg: Config, seed: int, grid: list[tuple[int, float]], console: Console) -> tuple[list[dict], list[dict]]:
    """The rows of one seed, and what the sweep found."""
    task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    held_out, spare = task.test[: cfg.eval_problems], task.train[-cfg.sweep_problems :]
    how = {"max_tokens": cfg.max_tokens, "rows": cfg.rows, "ask": partial(messages, task)}
    ready = partial(load_inference_model, sampling=Sampling(cfg.temperature, top_p=cfg.top_p), **how)
    fused = partial(ready, cfg.target, base=cfg.base, mapped=cfg.mapped)
    fused(guide=cfg.guide).check(map(how["ask"], [*held_out, *spare]))
    folder = RunFolder(Path(cfg.out) / f"seed-{seed}", asdict(cfg) | {"seed": seed})

    def measured(reasoner: InferenceModel, problems: Sequence[Problem], samples: int) -> dict:
        key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
        done = evaluate(reasoner.params, problems, sampler=reasoner.problem_sampler(), group_size=samples, key=key)
        prompts = [reasoner.prompt(how["ask"](problem)) for problem in problems]
        written = [(prompts[i // samples], row["tokens"]) for i, row in enumerate(done.samples)]
        flops = sum(reasoner.reading(prompt).flops for prompt in prompts)
        flops += sum(reasoner.writing(prompt, tokens).flops for prompt, tokens in written)
        return done.summary | words_per_thousand(row["completion"] for row in done.samples) | {"flops": flops}

    def swept() -> list[dict]:
        found = []
        for warmup, alpha in grid:
            score = measured(fused(guide=cfg.guide, alpha=alpha, warmup=warmup), spare, 1)
            found.append({"seed": seed, "warmup": warmup, "alpha": alpha, "pass@1": score["pass@1"], "se": score["se"]})
            console.print(f"training problems: W = {warmup}, alpha = {alpha}: {score['pass@1']:.1%}")
        return found

    sweep = folder.load_or_compute("sweep.json", swept)
    best = max(sweep, key=lambda row: row["pass@1"])
    chosen = {"alpha": best["alpha"], "warmup": best["warmup"]}
    tuning = {"task": cfg.task, "data": cfg.data, "seed": seed, "smoke": cfg.smoke}
    tuning |= {"max_tokens": cfg.max_tokens, "eval_problems": min(cfg.eval_problems, 100), "export": True}
    makers = {
        "target": lambda: ready(cfg.target),
        "guide": lambda: ready(cfg.guide),
        "ThinkLogit": lambda: fused(guide=cfg.guide, **chosen),
        "ThinkLogit-DPO": lambda: fused(guide=corrected(cfg, folder.path / "dpo", tuning), **chosen),
        "target fine-tuned": lambda: ready(tuned(cfg, folder.path / "tuned", tuning)),
    }
    rows = []
    for name, make in makers.items():
        score = folder.load_or_compute(f"{name}.json", lambda make=make: measured(make(), held_out, cfg.samples))
        guided = chosen if name.startswith("ThinkLogit") else {"alpha": "", "warmup": ""}
        rows.append({"model": name, "seed": seed, **guided, **score})
        console.print(f"{name}: pass@1 {score['pass@1']:.1%} ± {score['se']:.1%}")
    if not (folder.path / "guidance.png").exists():
        plot_guidance(fused(guide=cfg.guide, **chosen), held_out[:4], folder.path / "guidance.png", seed)
    return rows, sweep


def corrected(cfg: Config, out: Path, tuning: dict) -> str:
    """The guide after DPO on pairs of its own and the target's answers."""
    if not (out / "model").exists():
        kinds = MIXTURES[cfg.pairs].format(guide=cfg.guide, target=cfg.target)
        flags = {"model": cfg.guide, "writers": f"{cfg.guide},{cfg.target}", "kinds": kinds, "out": str(out)}
        flags |= {"steps": cfg.dpo_steps, "learning_rate": cfg.dpo_rate, "problems": cfg.problems}
        flags |= {"lora_rank": cfg.lora_rank}
        dpo.run(with_defaults(dpo.Config, dpo.PRESETS, **tuning, **flags))
    return str(out / "model")


def tuned(cfg: Config, out: Path, tuning: dict) -> str:
    """The target after fine-tuning on what the guide solved."""
    if not (out / "model").exists():
        flags = {"model": cfg.target, "teacher": cfg.guide, "steps": cfg.tuned_steps, "out": str(out)}
        flags |= {"learning_rate": cfg.tuned_rate, "problems": cfg.tuned_problems}
        distill.run(with_defaults(distill.Config, distill.PRESETS, **tuning, **flags))
    return str(out / "model")


def table(rows: list[dict]) -> Table:
    """All seeds together."""
    shown = Table("", "pass@1 [95 %]", "pass@k", "maj@k", "tokens", "cost")
    price = {row["seed"]: row["flops"] for row in rows if row["model"] == "target"}
    for name in dict.fromkeys(row["model"] for row in rows):
        of = [row for row in rows if row["model"] == name]
        mean = {key: float(np.mean([row[key] for row in of])) for key in of[0] if isinstance(of[0][key], float)}
        spread = 1.96 * np.sqrt(np.mean([row["se"] ** 2 for row in of]) / len(of))
        low, high = max(0.0, mean["pass@1"] - spread), min(1.0, mean["pass@1"] + spread)
        several = [key for kind in ("pass@", "maj@") for key in mean if key.startswith(kind) and key != "pass@1"]
        cells = [f"{mean[key]:.1%}" for key in several] or ["", ""]
        cost = np.mean([row["flops"] / price[row["seed"]] for row in of])
        accuracy = f"{mean['pass@1']:.1%} [{low:.1%}, {high:.1%}]"
        shown.add_row(name, accuracy, *cells, f"{mean['length_mean']:.1f}", f"{cost:.1f} ×")
    return shown


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""Can a small reasoner lend its reasoning to a large model that never learned to reason?

    python experiments/thinklogit.py
    python experiments/thinklogit.py --target smollm2-135m --guide tiny --base tiny-base --token-map text

ThinkLogit (arXiv 2507.12759, 2510.09354): while the target decodes, the difference between the logits of the guide and
of the base it was made from is added to the target's. Compared with: target and guide alone; ThinkLogit-DPO, where the
guide first learns from pairs of its own and the target's completions of training problems; and, as an upper bound, the
target fine-tuned on the guide's correct completions. Warm-up W and strength alpha are chosen on training problems that
nothing else uses. With the bundled models a seed takes about ten minutes on two CPU cores. Interrupted, the same
command continues.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import distill
import dpo
import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from thinklogit.plots import plot_guidance, plot_rows, plot_sweep

from jaxreason.analysis import words_per_thousand
from jaxreason.errors import InputError
from jaxreason.evaluation import accuracy_interval, evaluate, grades_by_problem, runs_interval
from jaxreason.inference import InferenceModel, load_guided_model, load_inference_model
from jaxreason.runs import RunFolder, check_limits, choose, defaults, flag, main, run_experiment, write_csv
from jaxreason.sampling import Sampling
from jaxreason.tasks import Problem, Task, load_task, messages
from jaxreason.training import EVALUATION

MIXTURES = {  # chosen>rejected: the published ablation
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
    base: str = "tiny-base"  # the model that the guide was made from
    token_map: str = ""  # for a guide with another vocabulary: text, or a JSON file of tokens
    task: str = "grade-school"
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    warmups: str = "0,1,4"  # W: tokens that the target samples alone
    alphas: str = "0.5,0.75,1,1.25,1.5"
    sweep_problems: int = flag(200, 1)  # training problems on which W and alpha are chosen
    problems: int = flag(1000, 1)  # training problems that guide and target complete, for pairs
    pairs: str = "mixed"  # sources of chosen and rejected completions: mixed, guide-target, target-guide, guide or all
    dpo_steps: int = flag(60, 1)  # of the guide
    dpo_rate: float = flag(2e-5, 1e-12, 1)  # learning rate
    lora_rank: int = flag(0, 0)  # of the guide's adapters; 0: full fine-tuning
    tuned_problems: int = flag(4000, 1)  # training problems that the guide completes for the target's fine-tuning
    tuned_steps: int = flag(400, 1)
    tuned_rate: float = flag(2e-4, 1e-12, 1)  # learning rate
    eval_problems: int = flag(500, 1)
    samples: int = flag(8, 1)  # per held-out problem
    max_tokens: int = flag(72, 1)
    temperature: float = 1.0
    top_p: float = 1.0
    rows: int = flag(256, 1)  # completions sampled side by side
    seeds: int = flag(1, 1)  # number of seeds, from 0 on
    out: str = "runs/thinklogit"
    smoke: bool = False  # a few problems and steps of everything


SMOKE = {"sweep_problems": 4, "problems": 24, "dpo_steps": 2, "eval_problems": 4, "samples": 2}
SMOKE |= {"tuned_problems": 24, "tuned_steps": 2, "warmups": "0", "alphas": "0.5,1"}
flag_defaults = defaults(smoke=SMOKE)
CONSOLE = Console(highlight=False)
MODELS = ("target", "guide", "ThinkLogit", "ThinkLogit-DPO", "target fine-tuned")


def run(cfg: Config) -> list[dict]:
    check_limits(cfg)
    choose("pairs", cfg.pairs, MIXTURES)
    grid = list(product(parse_numbers(cfg, "warmups", int), parse_numbers(cfg, "alphas", float)))
    task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    held_out, validation = task.test[: cfg.eval_problems], task.train[-cfg.sweep_problems :]
    load_guided(cfg, task, cfg.guide).check_messages(messages(task, problem) for problem in [*held_out, *validation])
    rows, sweeps, accuracy = [], [], {name: [] for name in MODELS}
    for seed in range(cfg.seeds):
        CONSOLE.rule(f"seed {seed}")
        folder = RunFolder(Path(cfg.out) / f"seed-{seed}", asdict(cfg) | {"seed": seed})
        points = folder.load_or_compute("sweep.json", partial(sweep, cfg, task, validation, grid, seed))
        best = max(points, key=lambda point: point["pass@1"])
        for name in MODELS:
            compute = partial(evaluate_model, cfg, task, name, best, held_out, seed, folder.path)
            score = folder.load_or_compute(f"{name}.json", compute)
            guidance = {key: best[key] if name.startswith("ThinkLogit") else "" for key in ("alpha", "warmup")}
            accuracy[name].append(np.array(score.pop("by_problem")))
            rows.append({"model": name, "seed": seed} | guidance | score)
            CONSOLE.print(f"{name}: pass@1 {accuracy_interval(accuracy[name][-1][:, None])}")
        if not (folder.path / "guidance.png").exists():
            model = load_guided(cfg, task, cfg.guide, best["alpha"], best["warmup"])
            plot_guidance(model, held_out[:4], folder.path / "guidance.png", seed)
        sweeps += points
    out = Path(cfg.out)
    write_csv(out / "rows.csv", rows)
    write_csv(out / "sweep.csv", sweeps)
    plot_sweep(sweeps, out / "sweep.png")
    plot_rows(rows, accuracy, out / "rows.png")
    CONSOLE.print(make_table(rows, accuracy), f"all files of this run: {out}")
    return rows


def parse_numbers(cfg: Config, name: str, kind: type) -> list:
    try:
        numbers = [kind(text) for text in getattr(cfg, name).split(",")]
    except ValueError:
        numbers = [inf]
    if not all(0 <= number < inf for number in numbers):
        raise InputError(f"--{name} {getattr(cfg, name)!r}: give numbers of at least 0 with commas between, as 0,1,4")
    return numbers


def load_alone(cfg: Config, task: Task, name: str) -> InferenceModel:
    sampling, to_messages = Sampling(cfg.temperature, top_p=cfg.top_p), partial(messages, task)
    return load_inference_model(name, sampling, cfg.max_tokens, to_messages, rows=cfg.rows)


def load_guided(cfg: Config, task: Task, guide: str, alpha: float = 1.0, warmup: int = 0) -> InferenceModel:
    models, to_messages = (cfg.target, guide, cfg.base), partial(messages, task)
    sampling = Sampling(cfg.temperature, top_p=cfg.top_p)
    return load_guided_model(
        *models,
        sampling,
        cfg.max_tokens,
        to_messages,
        token_map=cfg.token_map,
        alpha=alpha,
        warmup=warmup,
        rows=cfg.rows,
    )


def sweep(
    cfg: Config, task: Task, problems: Sequence[Problem], grid: Sequence[tuple[int, float]], seed: int
) -> list[dict]:
    """Accuracy of ThinkLogit for each warm-up and alpha, one sample per problem."""
    points, model = [], load_guided(cfg, task, cfg.guide)
    for warmup, alpha in grid:
        decoder = replace(model.decoder, warmup=warmup, alpha=alpha)
        score = measure(replace(model, decoder=decoder), problems, 1, seed)
        points.append({"seed": seed, "warmup": warmup, "alpha": alpha, "pass@1": score["pass@1"]})
        CONSOLE.print(f"training problems: W = {warmup}, alpha = {alpha}: {score['pass@1']:.1%}")
    return points


def evaluate_model(
    cfg: Config, task: Task, name: str, best: dict, problems: Sequence[Problem], seed: int, out: Path
) -> dict:
    """Scores of one of `MODELS`, which is trained first if need be."""
    alpha, warmup = best["alpha"], best["warmup"]
    match name:
        case "target":
            model = load_alone(cfg, task, cfg.target)
        case "guide":
            model = load_alone(cfg, task, cfg.guide)
        case "ThinkLogit":
            model = load_guided(cfg, task, cfg.guide, alpha, warmup)
        case "ThinkLogit-DPO":
            model = load_guided(cfg, task, train_guide(cfg, out / "dpo", seed), alpha, warmup)
        case _:
            model = load_alone(cfg, task, fine_tune_target(cfg, out / "tuned", seed))
    return measure(model, problems, cfg.samples, seed)


def measure(model: InferenceModel, problems: Sequence[Problem], samples: int, seed: int) -> dict:
    """Accuracy, words of reasoning, and the arithmetic of all samples; a prompt's prefill counts once."""
    key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
    done = evaluate(model.params, problems, sampler=model.problem_sampler(), group_size=samples, key=key)
    prompts = model.encode_problems(problems)
    flops = sum(model.prefill_cost(prompt).flops for prompt in prompts)
    flops += sum(model.decode_cost(prompts[i // samples], row["tokens"]).flops for i, row in enumerate(done.samples))
    by_problem = {"by_problem": grades_by_problem(done.samples).mean(axis=1).tolist()}
    return done.summary | by_problem | words_per_thousand(row["completion"] for row in done.samples) | {"flops": flops}


def train_guide(cfg: Config, out: Path, seed: int) -> str:
    """The guide after DPO on pairs of its own and the target's completions."""
    run_experiment(
        dpo,
        out,
        model=cfg.guide,
        generators=f"{cfg.guide},{cfg.target}",
        pair_types=MIXTURES[cfg.pairs].format(guide=cfg.guide, target=cfg.target),
        problems=cfg.problems,
        steps=cfg.dpo_steps,
        learning_rate=cfg.dpo_rate,
        lora_rank=cfg.lora_rank,
        **shared_flags(cfg, seed),
    )
    return str(out / "model")


def fine_tune_target(cfg: Config, out: Path, seed: int) -> str:
    """The target after fine-tuning on the guide's correct completions."""
    run_experiment(
        distill,
        out,
        model=cfg.target,
        teacher=cfg.guide,
        problems=cfg.tuned_problems,
        steps=cfg.tuned_steps,
        learning_rate=cfg.tuned_rate,
        **shared_flags(cfg, seed),
    )
    return str(out / "model")


def shared_flags(cfg: Config, seed: int) -> dict[str, Any]:
    flags = {"task": cfg.task, "data": cfg.data, "max_tokens": cfg.max_tokens, "seed": seed, "smoke": cfg.smoke}
    return flags | {"eval_problems": min(cfg.eval_problems, 100), "export": True}


def make_table(rows: list[dict], accuracy: Mapping[str, list[np.ndarray]]) -> Table:
    """Means over seeds; cost is relative to the target's. `accuracy`: of every problem, by model and seed."""
    table = Table("", "pass@1 [95 %]", "pass@k", "maj@k", "tokens", "cost")
    target_flops = {row["seed"]: row["flops"] for row in rows if row["model"] == "target"}
    for name in dict.fromkeys(row["model"] for row in rows):
        group = [row for row in rows if row["model"] == name]
        mean = {
            key: float(np.mean([row[key] for row in group])) for key in group[0] if isinstance(group[0][key], float)
        }
        at_k = [key for kind in ("pass@", "maj@") for key in mean if key.startswith(kind) and key != "pass@1"]
        cells = [f"{mean[key]:.1%}" for key in at_k] or ["", ""]
        cost = np.mean([row["flops"] / target_flops[row["seed"]] for row in group])
        interval = runs_interval(accuracy[name])
        table.caption = f"95 % intervals: {interval.estimand}"
        table.add_row(name, str(interval), *cells, f"{mean['length_mean']:.1f}", f"{cost:.1f} ×")
    return table


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

"""Does a model reason, or does it match patterns it has seen?

    python experiments/pattern_matching_probe.py --model tiny

Accuracy, with 95 % intervals, and completion length on generated held-out sets that each remove one crutch: (a) known
stories with new numbers and names, (b) new stories, (c) larger numbers, (d) premises that contradict each other or
common knowledge, and the sound twins of d. Reasoning would carry over from a to the others; pattern matching does not,
and answers d as if it were its twin. Only the `tiny` family has been trained on stories like a; to any other model all
stories are new.
"""

from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import jax
from rich.console import Console

from jaxreason import runs
from jaxreason.evaluation import plot_sets, sets_table
from jaxreason.models import Transformer
from jaxreason.sampling import Sampling, check_prompts, make_problem_sampler, transformer_sampler
from jaxreason.tasks import load_task, messages
from jaxreason.weights import load_model


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    shots: int = runs.flag(0, 0, 4)  # worked examples before each question
    eval_problems: int = runs.flag(500, 1)  # of each set
    max_tokens: int = runs.flag(72, 1)  # length limit of a completion
    temperature: float = runs.flag(1.0, 0, 1e3)  # as `tiny` was trained; 0, the default for other models, is greedy
    rows: int = runs.flag(256, 1)  # completions sampled side by side
    seed: int = runs.flag(0, 0, 2**32 - 1)
    out: str = ""  # folder for the numbers, all completions and the plot; empty: runs/pattern_matching_probe/MODEL
    smoke: bool = False  # shrink what no flag sets to a minute's work


PRETRAINED = {"eval_problems": 50, "max_tokens": 256, "temperature": 0.0, "rows": 32}
flag_defaults = runs.defaults(pretrained=PRETRAINED, smoke={"eval_problems": 4, "max_tokens": 16, "rows": 4})


def main(cfg: Config) -> dict:
    runs.check_limits(cfg)
    console, task = Console(highlight=False), load_task("grade-school")
    config, params, tokenizer = load_model(cfg.model)
    sampling, limit = Sampling(cfg.temperature), cfg.max_tokens
    sample = transformer_sampler(Transformer(config), tokenizer, sampling, max_tokens=limit, rows=cfg.rows)
    sampler = make_problem_sampler(sample, tokenizer, partial(messages, task, shots=cfg.shots))
    sets = {name: problems[: cfg.eval_problems] for name, problems in task.held_out.items()}
    check_prompts(sampler, chain(*sets.values()), max_tokens=limit, config=config)
    key = jax.random.key(cfg.seed)
    evaluations = runs.evaluate_sets(params, sets, sampler, samples=1, key=key, console=console, label=cfg.model)

    folder = Path(cfg.out or f"runs/pattern_matching_probe/{Path(cfg.model).name}" + "-smoke" * cfg.smoke)
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(folder / "samples.json", {name: each["samples"] for name, each in evaluations.items()})
    summary = {name: each["summary"] for name, each in evaluations.items()}
    runs.write_json(folder / "summary.json", {"config": asdict(cfg), **summary})
    count = len(sets["held-out"])
    plot_sets(summary, folder / "probe.png", title=f"{cfg.model}: accuracy by what is new, n = {count} a set")
    console.print(sets_table(summary))
    console.print(f"all files of this run: {folder}")
    return summary


if __name__ == "__main__":
    runs.main(main, Config, __doc__, flag_defaults)

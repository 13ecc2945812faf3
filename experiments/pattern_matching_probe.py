"""Does a model reason, or does it match patterns it has seen?

    python experiments/pattern_matching_probe.py --model tiny

Accuracy, with 95 % intervals, and completion length on generated held-out sets that take away one crutch each: (a) the
known stories with new numbers and names, (b) new stories, (c) larger numbers, (d) premises that contradict each other
or common knowledge, and the sound twins of d. Reasoning would carry over from a to the others; pattern matching does
not, and answers d as if it were its twin. Only the `tiny` family has been trained on stories like a; to any other model
all stories are new.
"""

from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path

import jax
from rich.console import Console

from jaxreason.evaluation import evaluate, plot_sets, sets_table
from jaxreason.models import Transformer
from jaxreason.runs import check_limits, evaluate_sets, main, presets, write_json
from jaxreason.sampling import ProblemSampler, Sampling, check_prompts, transformer_sampler
from jaxreason.tasks import load_task, messages
from jaxreason.text import encode_prompt
from jaxreason.weights import load_model

LIMITS = dict.fromkeys(("problems", "max_tokens", "rows"), (1, inf))
LIMITS |= {"temperature": (0, 1e3), "shots": (0, 4), "seed": (0, 2**32 - 1)}
PRETRAINED_DEFAULTS = {"problems": 50, "max_tokens": 256, "temperature": 0.0, "rows": 32}
SMOKE_DEFAULTS = {"problems": 4, "max_tokens": 16, "rows": 4}
PRESETS = presets(real=PRETRAINED_DEFAULTS, smoke=SMOKE_DEFAULTS)


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    shots: int = 0  # worked examples before each question
    problems: int = 500  # of each set
    max_tokens: int = 72  # longest completion
    temperature: float = 1.0  # as `tiny` was trained; 0, the default for other models, is greedy
    rows: int = 256  # completions sampled side by side
    seed: int = 0
    out: str = ""  # folder for the numbers, all completions and the plot; empty: runs/pattern_matching_probe/MODEL
    smoke: bool = False  # shrink what no flag sets to a minute's work


def run(cfg: Config) -> dict:
    check_limits(cfg, LIMITS)
    console = Console(highlight=False)
    task = load_task("grade-school")
    config, params, tokenizer = load_model(cfg.model)
    sampling = Sampling(cfg.temperature)
    sample = transformer_sampler(Transformer(config), tokenizer, sampling, max_tokens=cfg.max_tokens, rows=cfg.rows)
    sampler = ProblemSampler(
        lambda problem: encode_prompt(tokenizer, messages(task, problem, cfg.shots)), sample, tokenizer
    )
    sets = {name: problems[: cfg.problems] for name, problems in task.held_out.items()}
    check_prompts(sampler, chain(*sets.values()), max_tokens=cfg.max_tokens, config=config)
    measure = partial(evaluate, sampler=sampler, group_size=1, key=jax.random.key(cfg.seed))
    done = evaluate_sets(params, sets, measure, console, cfg.model)

    folder = Path(cfg.out or f"runs/pattern_matching_probe/{Path(cfg.model).name}" + "-smoke" * cfg.smoke)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "samples.json", {name: evaluation["samples"] for name, evaluation in done.items()})
    summary = {name: evaluation["summary"] for name, evaluation in done.items()}
    write_json(folder / "summary.json", {"config": asdict(cfg), **summary})
    count = len(sets["held-out"])
    plot_sets(summary, folder / "probe.png", title=f"{cfg.model}: accuracy by what is new, n = {count} a set")
    console.print(sets_table(summary))
    console.print(f"everything of this run: {folder}")
    return summary


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""How often does a model solve a task's held-out problems?

    python experiments/evaluate.py
    python experiments/evaluate.py --model smollm2-135m --task mawps --shots 2 --problems 402 --samples 2

Samples and grades, strictly and leniently side by side, and prints one JSON object: pass@1 with its standard error,
pass@k, maj@k, length. `--model` may be the `model/` folder that a training run wrote with `--export`.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from jaxreason.evaluation import evaluate
from jaxreason.models import Transformer, fuse
from jaxreason.rewards.math import MathGrader
from jaxreason.runs import check_limits, main, presets, write_json
from jaxreason.sampling import ProblemSampler, Sampling, check_prompts, transformer_sampler
from jaxreason.tasks import load_task, messages
from jaxreason.text import encode_prompt
from jaxreason.weights import load_model

LIMITS = dict.fromkeys(("problems", "samples", "max_tokens", "rows"), (1, float("inf")))
LIMITS |= {"temperature": (0, 1e3), "shots": (0, float("inf")), "seed": (0, 2**32 - 1)}
PRETRAINED_DEFAULTS = {"task": "gsm8k", "problems": 100, "max_tokens": 128, "temperature": 0.0, "rows": 32}
SMOKE_DEFAULTS = {"problems": 4, "max_tokens": 16, "rows": 4}
PRESETS = presets(real=PRETRAINED_DEFAULTS, smoke=SMOKE_DEFAULTS)


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    task: str = "grade-school"  # gsm8k for models that do not ship; also svamp, mawps, math500, rg:NAME, a .jsonl file
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    shots: int = 0  # worked examples before each question
    problems: int = 500  # how many held-out problems
    samples: int = 1  # completions for each
    max_tokens: int = 72  # longest completion
    temperature: float = 1.0  # as `tiny` was trained; 0, the default for other models, is greedy
    rows: int = 256  # completions sampled side by side
    symbolic: bool = False  # also grade LaTeX by what it means; needs the extra `math`
    seed: int = 0
    out: str = ""  # file for the numbers and all completions, as JSON
    smoke: bool = False  # shrink what no flag sets to a minute's work


def run(cfg: Config) -> dict:
    check_limits(cfg, LIMITS)
    config, params, tokenizer = load_model(cfg.model)
    task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    params = fuse(params)
    sampling = Sampling(cfg.temperature)
    sample = transformer_sampler(Transformer(config), tokenizer, sampling, max_tokens=cfg.max_tokens, rows=cfg.rows)
    sampler = ProblemSampler(
        lambda problem: encode_prompt(tokenizer, messages(task, problem, cfg.shots)), sample, tokenizer
    )
    problems = task.test[: cfg.problems]
    check_prompts(sampler, problems, max_tokens=cfg.max_tokens, config=config)
    graders = {"symbolic": MathGrader()} if cfg.symbolic else {}
    key = jax.random.key(cfg.seed)
    summary, samples = evaluate(params, problems, sampler=sampler, group_size=cfg.samples, key=key, graders=graders)
    asked = {name: getattr(cfg, name) for name in ("model", "task", "shots", "temperature", "seed")}
    print(json.dumps(asked | summary))
    if cfg.out:
        write_json(Path(cfg.out), {"config": asdict(cfg), "summary": summary, "samples": samples})
    return summary


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""How often does a model solve a task's held-out problems?

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
from jaxreason.models import Transformer, fuse, load_model
from jaxreason.rewards.math import MathGrader
from jaxreason.runs import check_limits, main, write_json
from jaxreason.sampling import Policy, Sampling, check_prompts, sampler
from jaxreason.tasks import load_task, messages
from jaxreason.text import encode_prompt

LIMITS = dict.fromkeys(("problems", "samples", "max_tokens", "rows"), (1, float("inf")))
LIMITS |= {"temperature": (0, 1e3), "shots": (0, float("inf")), "seed": (0, 2**32 - 1)}


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    task: str = "gsm8k"  # also svamp, mawps, math500, grade-school, rg:NAME or a .jsonl file with question and answer
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    shots: int = 0  # worked examples before each question
    problems: int = 100  # how many held-out problems
    samples: int = 1  # completions for each
    max_tokens: int = 128  # longest completion
    temperature: float = 0.0  # 0 is greedy
    rows: int = 32  # completions sampled side by side
    symbolic: bool = False  # also grade LaTeX by what it means; needs the extra `math`
    seed: int = 0
    out: str = ""  # file for the numbers and all completions, as JSON


def run(cfg: Config) -> dict:
    check_limits(cfg, LIMITS)
    task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    config, params, tokenizer = load_model(cfg.model)
    params = fuse(params)
    sampling = Sampling(cfg.temperature)
    sample = sampler(Transformer(config), tokenizer, sampling, max_tokens=cfg.max_tokens, rows=cfg.rows)
    policy = Policy(lambda problem: encode_prompt(tokenizer, messages(task, problem, cfg.shots)), sample, tokenizer)
    problems = task.test[: cfg.problems]
    check_prompts(policy, problems, max_tokens=cfg.max_tokens, config=config)
    graders = {"symbolic": MathGrader()} if cfg.symbolic else {}
    key = jax.random.key(cfg.seed)
    summary, samples = evaluate(params, problems, policy=policy, groups=cfg.samples, key=key, graders=graders)
    print(json.dumps(summary))
    if cfg.out:
        write_json(Path(cfg.out), {"config": asdict(cfg), "summary": summary, "samples": samples})
    return summary


if __name__ == "__main__":
    main(run, Config, __doc__)

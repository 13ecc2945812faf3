"""How often does a model solve a task's held-out problems?

    python experiments/evaluate.py
    python experiments/evaluate.py --model smollm2-135m --task mawps --shots 2 --eval-problems 402 --eval-samples 2

Samples and grades, strictly and leniently side by side, and prints one JSON object: pass@1 with its standard error,
pass@k, maj@k, length. `--model` may be the `model/` folder that a training run wrote with `--export`.
"""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax

from jaxreason import runs
from jaxreason.errors import InputError
from jaxreason.evaluation import evaluate
from jaxreason.models import Transformer, fuse
from jaxreason.rewards import MathGrader
from jaxreason.sampling import Sampling, check_prompts, make_problem_sampler, transformer_sampler
from jaxreason.tasks import messages
from jaxreason.weights import load_model


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    data: runs.DataFlags = runs.DataFlags()
    sampling: runs.SamplingFlags = runs.SamplingFlags()  # tiny was trained at temperature 1; other models: greedy
    evaluation: runs.EvaluationFlags = runs.EvaluationFlags()
    rows: int = runs.flag(256, 1)  # completions sampled side by side
    symbolic: bool = False  # also grade LaTeX by what it means; needs the extra `math`
    seed: int = runs.flag(0, 0, 2**32 - 1)
    out: str = ""  # file for the numbers and all completions, as JSON
    smoke: bool = False  # shrink what no flag sets to a minute's work


PRETRAINED = {"task": "gsm8k", "eval_problems": 100, "max_tokens": 128, "temperature": 0.0, "rows": 32}
flag_defaults = runs.defaults(pretrained=PRETRAINED, smoke={"eval_problems": 4, "max_tokens": 16, "rows": 4})


def main(cfg: Config) -> dict:
    runs.check_limits(cfg)
    if cfg.sampling.temperature == 0 and cfg.evaluation.eval_samples > 1:
        samples = cfg.evaluation.eval_samples
        raise InputError(f"--eval-samples {samples} at --temperature 0 are all equal: give 1, or a --temperature")
    config, params, tokenizer = load_model(cfg.model)
    task, flags = runs.load_task(cfg.data), cfg.sampling
    sampling = Sampling(flags.temperature, flags.top_k, flags.top_p, flags.min_p)
    sample = transformer_sampler(Transformer(config), tokenizer, sampling, max_tokens=flags.max_tokens, rows=cfg.rows)
    sampler = make_problem_sampler(sample, tokenizer, partial(messages, task, shots=cfg.data.shots))
    problems = task.test[: cfg.evaluation.eval_problems]
    check_prompts(sampler, problems, max_tokens=flags.max_tokens, config=config)
    summary, samples = evaluate(
        fuse(params),
        problems,
        sampler=sampler,
        group_size=cfg.evaluation.eval_samples,
        key=jax.random.key(cfg.seed),
        graders={"symbolic": MathGrader()} if cfg.symbolic else {},
    )
    settings = {"model": cfg.model, "task": cfg.data.task, "shots": cfg.data.shots, "seed": cfg.seed}
    print(json.dumps(settings | {"temperature": flags.temperature} | summary))
    if cfg.out:
        runs.write_json(Path(cfg.out), {"config": asdict(cfg), "summary": summary, "samples": samples})
    return summary


if __name__ == "__main__":
    runs.main(main, Config, __doc__, flag_defaults)

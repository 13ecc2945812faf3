"""How much memory does one GRPO step take, beside TRL's `GRPOTrainer`?

    python experiments/benchmarks/memory.py
    python experiments/benchmarks/memory.py --model smollm2-135m --trl

Peak resident memory, on the CPU, of a process that loads the model and takes two steps with AdamW in float32: sampling
and update. Each contender has a process of its own. TRL only if asked for: it may need more than the machine has.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from peers import our_grpo_step, prompts_of, trl_step
from timing import peak_gb

from jaxreason.runs import check_limits, defaults, flag, main, write_json
from jaxreason.weights import load_model, save_folder

flag_defaults = defaults(smoke={"model": "tiny", "prompts": 2, "group_size": 2, "tokens": 4})


@dataclass(frozen=True)
class Config:
    model: str = "gemma3-270m"
    prompts: int = flag(4, 1)
    group_size: int = flag(8, 1)  # completions per prompt
    tokens: int = flag(128, 1)  # of every completion
    prompt_tokens: int = flag(96, 0)  # of every prompt, at least
    memory: float = flag(1.0, 0)  # GB of activations that our update may hold
    trl: bool = False
    out: str = ""  # file for the figures as JSON
    smoke: bool = False  # the tiny model, a few tokens


def run(cfg: Config) -> dict:
    check_limits(cfg)
    figures = {"config": asdict(cfg)}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        prompts, ids = alone(save, cfg, folder)
        figures["jaxreason"] = alone(ours, cfg, folder, ids)
        if cfg.trl:
            figures["trl"] = alone(trl, cfg, folder, prompts)
    for name, figure in list(figures.items())[1:]:
        print(f"{name:<12} loaded {figure['loaded_gb']:6.2f} GB, at its peak {figure['peak_gb']:6.2f} GB")
    print(json.dumps(figures))
    if cfg.out:
        write_json(Path(cfg.out), figures)
    return figures


def alone(function, *args):
    """The result of a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def save(cfg: Config, folder: Path) -> tuple[list[str], list[list[int]]]:
    config, params, tokenizer = load_model(cfg.model)
    save_folder(folder, params, config, tokenizer)
    prompts = prompts_of(tokenizer, cfg.prompts, cfg.prompt_tokens)
    return prompts, [tokenizer.encode(prompt) for prompt in prompts]


def ours(cfg: Config, folder: Path, ids: list[list[int]]) -> dict[str, float]:
    return two_steps(our_grpo_step(folder, ids, rewards(cfg), tokens=cfg.tokens, memory=cfg.memory * 1e9))


def trl(cfg: Config, folder: Path, prompts: list[str]) -> dict[str, float]:
    return two_steps(trl_step(folder, prompts, rewards(cfg), tokens=cfg.tokens, rounds=2))


def rewards(cfg: Config) -> np.ndarray:
    return np.arange(cfg.prompts * cfg.group_size, dtype=np.float32).reshape(cfg.prompts, cfg.group_size) % 2


def two_steps(step) -> dict[str, float]:
    loaded = peak_gb()
    step()
    step()
    return {"loaded_gb": loaded, "peak_gb": peak_gb()}


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

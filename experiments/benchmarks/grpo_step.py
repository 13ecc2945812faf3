"""How long does one GRPO step take, beside TRL's `GRPOTrainer`?

    python experiments/benchmarks/grpo_step.py
    python experiments/benchmarks/grpo_step.py --prompt-tokens 800

Same weights, prompts, lengths, optimiser and precision, in turns, each in its own process: sampling and update.
No completion ends early, and both get the same rewards. Long prompts are worked examples before the question. A peer
that is not installed is named.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from peers import our_grpo_step, prompts_of, trl_step
from rich.console import Console
from timing import benchmark, start_workers

from jaxreason.errors import InputError
from jaxreason.runs import check_limits, defaults, flag, main
from jaxreason.weights import load_model, save_folder

flag_defaults = defaults(smoke={"model": "tiny", "prompts": 2, "group_size": 2, "tokens": 4, "rounds": 1})


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"
    prompts: int = flag(4, 1)
    group_size: int = flag(8, 1)  # completions per prompt
    tokens: int = flag(64, 1)  # of every completion
    prompt_tokens: int = flag(96, 0)  # of every prompt, at least
    rounds: int = flag(3, 1)
    memory: float = flag(4.0, 1e-09)  # GB of activations that our update may hold
    trl_rows: int = flag(
        0, 0
    )  # completions that go through TRL's update at a time; 0: all, which long prompts have no room for
    out: str = ""  # file for the figures as JSON
    smoke: bool = False  # the tiny model, a few tokens


def run(cfg: Config) -> dict:
    check_limits(cfg)
    console = Console(highlight=False)
    config, params, tokenizer = load_model(cfg.model)
    prompts = prompts_of(tokenizer, cfg.prompts, cfg.prompt_tokens)
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    rewards = np.arange(cfg.prompts * cfg.group_size, dtype=np.float32).reshape(cfg.prompts, cfg.group_size) % 2
    if cfg.trl_rows and rewards.size % cfg.trl_rows:
        raise InputError(f"--trl-rows {cfg.trl_rows} does not divide the {rewards.size} completions: give a divisor")
    lengths = sorted(map(len, ids))
    console.print(f"{cfg.prompts} prompts of {lengths[0]} to {lengths[-1]} tokens, {cfg.group_size} completions")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_folder(folder, params, config, tokenizer)
        ours = partial(our_grpo_step, folder, ids, rewards, tokens=cfg.tokens, memory=cfg.memory * 1e9)
        trl = partial(trl_step, folder, prompts, rewards, tokens=cfg.tokens, rounds=cfg.rounds + 1, rows=cfg.trl_rows)
        contenders = start_workers({"jaxreason": ours, "trl": trl}, console)
        return benchmark(contenders, cfg, console, work=rewards.size * cfg.tokens, unit="tokens/s")


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

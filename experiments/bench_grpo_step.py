"""How long does one GRPO step take, beside TRL's `GRPOTrainer`?

    python experiments/bench_grpo_step.py
    python experiments/bench_grpo_step.py --prompt-tokens 800

Same weights, prompts, lengths, optimiser and precision, in turns within one process: sampling, advantages and update.
No completion ends early, and both get the same rewards. Long prompts are worked examples before the question. A peer
that is not installed is named.
"""

from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np
from peers import trl_step
from rich.console import Console

from jaxreason.models import Transformer, load_model, save_folder
from jaxreason.objectives import GRPO
from jaxreason.runs import check_limits, contest, main, ready
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, pad_prompts, row_keys
from jaxreason.tasks import load_task
from jaxreason.training import init_state, make_optimizer, prepare, updater

LIMITS = dict.fromkeys(("prompts", "groups", "tokens", "rounds"), (1, inf))
LIMITS |= {"prompt_tokens": (0, inf), "memory": (0, inf)}
SMOKE = {"model": "tiny", "prompts": 2, "groups": 2, "tokens": 4, "rounds": 1}


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"
    prompts: int = 4
    groups: int = 8  # completions per prompt
    tokens: int = 64  # of every completion
    prompt_tokens: int = 96  # of every prompt, at least
    rounds: int = 3
    memory: float = 4.0  # GB of activations that our update may hold
    out: str = ""  # file for the figures as JSON
    smoke: bool = False  # the tiny model, a few tokens


def run(cfg: Config) -> dict:
    check_limits(cfg, LIMITS)
    console = Console(highlight=False)
    config, params, tokenizer = load_model(cfg.model)
    prompts = prompts_of(cfg, tokenizer)
    rewards = np.arange(cfg.prompts * cfg.groups, dtype=np.float32).reshape(cfg.prompts, cfg.groups) % 2
    lengths = [len(tokenizer.encode(prompt)) for prompt in prompts]
    console.print(f"{cfg.prompts} prompts of {min(lengths)} to {max(lengths)} tokens, {cfg.groups} completions")
    contenders = {"jaxreason": ours(cfg, config, params, [tokenizer.encode(p) for p in prompts], rewards)}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_folder(folder, params, config, tokenizer)
        trl = partial(trl_step, folder, prompts, rewards, tokens=cfg.tokens, rounds=cfg.rounds + 1)
        contenders |= ready({"trl": trl}, console)
        return contest(contenders, cfg, console, work=rewards.size * cfg.tokens, unit="tokens/s")


def prompts_of(cfg: Config, tokenizer) -> list[str]:
    """Questions after as many solved ones as make up the tokens asked for."""
    problems, prompts = iter(load_task("grade-school").train), []
    while len(prompts) < cfg.prompts:
        text = f"{next(problems).question}\n"
        while len(tokenizer.encode(text)) < cfg.prompt_tokens:
            problem = next(problems)
            text = f"{problem.question}\n{problem.solution}\n#### {problem.answer}\n\n{text}"
        prompts.append(text)
    return prompts


def ours(cfg: Config, config, params, ids: list[list[int]], rewards: np.ndarray):
    model, optimizer = Transformer(config), make_optimizer(1e-6)
    sample = Sampler(TransformerDecoder(model), Sampling(), max_tokens=cfg.tokens, stop_ids=())
    update = updater(model=model, algorithm=GRPO, optimizer=optimizer, memory=cfg.memory * 1e9)
    prompts, states = pad_prompts(ids), [init_state(params, optimizer, seed=0)]

    def step() -> None:
        state = states.pop()
        keys = row_keys(jax.random.fold_in(state.key, state.step), np.arange(cfg.prompts), cfg.groups)
        rollouts = sample(state.params, prompts, keys=keys)
        state, _ = update(state, prepare(rollouts, rewards, GRPO))
        states.append(jax.block_until_ready(state._replace(step=state.step + 1)))

    return step


if __name__ == "__main__":
    main(run, Config, __doc__, lambda cfg: SMOKE if cfg.smoke else {})

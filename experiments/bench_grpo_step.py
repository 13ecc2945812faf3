"""How long does one GRPO step take, beside TRL's `GRPOTrainer`?

    python experiments/bench_grpo_step.py
    python experiments/bench_grpo_step.py --prompt-tokens 800

Same weights, prompts, lengths, optimiser and precision, in turns within one process: sampling, advantages and update.
No completion ends early, and both get the same rewards. Long prompts are worked examples before the question. A peer
that is not installed is named.
"""

import json
import threading
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np
from rich.console import Console

from jaxreason.models import Transformer, load_model, save_folder
from jaxreason.objectives import GRPO
from jaxreason.runs import check_limits, compare, interleave, main, write_json
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
    with TemporaryDirectory() as folder:
        save_folder(Path(folder) / "model", params, config, tokenizer)
        contenders = {"jaxreason": ours(cfg, config, params, [tokenizer.encode(p) for p in prompts], rewards)}
        try:
            contenders["trl"] = trl_step(cfg, Path(folder), prompts, rewards)
        except ImportError as error:
            console.print(f"trl is absent: {error}")
        seconds = interleave(contenders, cfg.rounds, console.print)
    figures, table = compare(seconds, cfg.prompts * cfg.groups * cfg.tokens, "tokens/s")
    console.print(table)
    figures = {"config": asdict(cfg), **figures}
    print(json.dumps(figures))
    if cfg.out:
        write_json(Path(cfg.out), figures)
    return figures


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


def trl_step(cfg: Config, folder: Path, prompts: list[str], rewards: np.ndarray):
    """A trainer in a thread of its own that takes one step whenever it is asked to."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    go, done = threading.Semaphore(0), threading.Semaphore(0)

    class OneAtATime(TrainerCallback):
        def on_step_begin(self, *args, **kwargs) -> None:
            go.acquire()

        def on_step_end(self, *args, **kwargs) -> None:
            done.release()

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    settings = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=cfg.prompts * cfg.groups,
        num_generations=cfg.groups,
        max_completion_length=cfg.tokens,
        generation_kwargs={"min_new_tokens": cfg.tokens},
        max_steps=cfg.rounds + 1,
        learning_rate=1e-6,
        beta=0.0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model"),
        reward_funcs=lambda completions, **_: rewards.reshape(-1).tolist(),
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": prompts * (cfg.rounds + 1)}),
        processing_class=tokenizer,
        callbacks=[OneAtATime()],
    )
    threading.Thread(target=trainer.train, daemon=True).start()

    def step() -> None:
        go.release()
        done.acquire()

    return step


if __name__ == "__main__":
    main(run, Config, __doc__, lambda cfg: SMOKE if cfg.smoke else {})

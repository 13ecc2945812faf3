"""What does a prompt cost as its group grows, and as it grows itself?

    python experiments/benchmarks/growth.py

An update on a fixed number of completion tokens in groups of 4 to 32, and sampling after prompts of 128 to 2,048
tokens; each beside the same work with a copy of the prompt for every completion, as a batch without groups has it, and
the update also without its prompts. Writes growth.csv and growth.png into `--out`.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from timing import interleave

from jaxreason.models import ModelConfig, Transformer, fuse
from jaxreason.objectives import GRPO
from jaxreason.runs import check_limits, defaults, flag, main, write_csv
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, completion_keys
from jaxreason.training import Batch, MicrobatchedUpdate, init_state, make_batch, make_optimizer
from jaxreason.types import Prompts, Rollouts
from jaxreason.weights import load_model

flag_defaults = defaults(
    smoke={"model": "tiny", "prompts": 1, "tokens": 4, "rounds": 1, "largest_group": 4, "longest_prompt": 128}
)


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"
    prompts: int = flag(2, 1)
    tokens: int = flag(512, 1)  # of all completions of a prompt, shared out among its group
    largest_group: int = flag(32, 1)
    longest_prompt: int = flag(2048, 1)
    rounds: int = flag(3, 1)
    memory: float = flag(4.0, 0)  # GB of activations that the update may hold
    out: str = "runs/benchmarks/growth"
    smoke: bool = False  # the tiny model, a few tokens


def run(cfg: Config) -> dict:
    check_limits(cfg)
    console, rows = Console(highlight=False), []
    config, params, _ = load_model(cfg.model)
    params = fuse(params)
    for group_size in doubling(4, cfg.largest_group):
        console.print(f"update, groups of {group_size}")
        rows += timed("update", group_size, updates(cfg, config, params, group_size), cfg.rounds, console)
    for length in doubling(128, cfg.longest_prompt):
        console.print(f"sampling, prompts of {length}")
        rows += timed("sampling", length, samplers(cfg, config, params, length), cfg.rounds, console)
    folder = Path(cfg.out)
    write_csv(folder / "growth.csv", rows)
    plot(rows, folder / "growth.png", title=f"{cfg.model}, {cfg.prompts} prompts")
    shares = {}
    for group_size in doubling(4, cfg.largest_group):
        of = {row["contender"]: row["median_s"] for row in rows if (row["work"], row["x"]) == ("update", group_size)}
        shares[group_size] = {name: 1 - of["no prompt"] / of[name] for name in ("shared", "repeated")}
        console.print(
            f"groups of {group_size}: the prompt's share of an update {shares[group_size]['shared']:.0%}, "
            f"repeated {shares[group_size]['repeated']:.0%}"
        )
    console.print(f"written: {folder}")
    return {"shares": shares}


def doubling(first: int, last: int) -> list[int]:
    return [first * 2**i for i in range((last // first).bit_length())]


def timed(work: str, x: int, contenders: dict[str, Callable], rounds: int, console: Console) -> list[dict]:
    seconds = interleave(contenders, rounds, console)
    return [
        {"work": work, "x": x, "contender": name, "median_s": statistics.median(times), "least_s": min(times)}
        for name, times in seconds.items()
    ]


def updates(cfg: Config, config: ModelConfig, params, group_size: int) -> dict[str, Callable]:
    model, optimizer, rng = Transformer(config), make_optimizer(1e-6), np.random.default_rng(0)
    update = MicrobatchedUpdate(model=model, algorithm=GRPO, optimizer=optimizer, activation_bytes=cfg.memory * 1e9)
    prompts, length = random_prompts(rng, cfg.prompts, 128, config), max(1, cfg.tokens // group_size)
    shape = cfg.prompts, group_size, length
    tokens, logps = rng.integers(0, config.vocab, shape, np.int32), np.full(shape, -1.0, np.float32)
    rollouts = Rollouts(prompts, tokens, np.ones(shape, bool), logps, np.ones(shape[:2], bool))
    rewards = np.arange(cfg.prompts * group_size, dtype=np.float32).reshape(shape[:2]) % 2
    batch = jax.tree.map(np.asarray, make_batch(rollouts, rewards, GRPO))
    state = init_state(jax.tree.map(jnp.copy, params), optimizer, seed=0)
    states = [state]

    def step(batch: Batch) -> None:
        state, _ = update(states.pop(), batch)
        states.append(jax.block_until_ready(state))

    short = batch._replace(rollouts=rollouts._replace(prompts=Prompts(*(x[:, :1] for x in prompts[:2]))))
    contenders = {"shared": batch, "repeated": ungrouped(batch), "no prompt": short}
    return {name: partial(step, batch) for name, batch in contenders.items()}


def ungrouped(batch: Batch) -> Batch:
    """Every completion with a prompt of its own."""
    group_size = batch.advantages.shape[1]
    prompts = Prompts(*(np.repeat(x, group_size, axis=0) for x in batch.rollouts.prompts[:2]))
    alone = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), batch._replace(rollouts=batch.rollouts[1:]))
    return alone._replace(rollouts=Rollouts(prompts, *alone.rollouts))


def samplers(cfg: Config, config: ModelConfig, params, length: int) -> dict[str, Callable]:
    group_size, rng = 8, np.random.default_rng(0)
    sample = Sampler(
        TransformerDecoder(Transformer(config)), Sampling(), max_tokens=max(1, cfg.tokens // group_size), stop_ids=()
    )
    prompts = random_prompts(rng, cfg.prompts, length, config)
    keys = completion_keys(jax.random.key(0), np.arange(cfg.prompts), group_size)
    repeated = Prompts(*(np.repeat(x, group_size, axis=0) for x in prompts[:2]))
    return {
        "shared": partial(sample, params, prompts, keys=keys),
        "repeated": partial(sample, params, repeated, keys=keys.reshape(-1, 1)),
    }


def random_prompts(rng: np.random.Generator, count: int, length: int, config: ModelConfig) -> Prompts:
    return Prompts(rng.integers(0, config.vocab, (count, length), np.int32), np.ones((count, length), bool))


def plot(rows: list[dict], path: Path, *, title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (work, label) in zip(
        figure.subplots(1, 2), {"update": "completions per prompt", "sampling": "prompt tokens"}.items(), strict=True
    ):
        for name in dict.fromkeys(row["contender"] for row in rows if row["work"] == work):
            chosen = [row for row in rows if (row["work"], row["contender"]) == (work, name)]
            axes.plot([row["x"] for row in chosen], [row["median_s"] for row in chosen], "o-", label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({row["x"] for row in rows if row["work"] == work}))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_ylabel(f"seconds of {work}")
        axes.grid(alpha=0.3)
        axes.legend(title="prompt")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

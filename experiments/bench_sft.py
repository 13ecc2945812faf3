"""How long does a step of supervised fine-tuning take, and how much memory, beside transformers' `Trainer`?

    python experiments/bench_sft.py

Same weights, texts, optimiser and precision, in turns, each in its own process. A peer that is not installed is named.
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from contenders import our_sft_step, trainer_step
from rich.console import Console

from jaxreason.errors import InputError
from jaxreason.models import load_model, save_folder
from jaxreason.runs import check_limits, contest, main, presets, ready
from jaxreason.tasks import load_task

LIMITS = dict.fromkeys(("rows", "rounds", "micro_batches"), (1, inf)) | {"length": (2, inf)}
PRESETS = presets(smoke={"model": "tiny", "rows": 4, "length": 32, "rounds": 1, "micro_batches": 2})


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"
    rows: int = 16
    length: int = 256  # tokens of every row
    micro_batches: int = 4  # parts of the rows that go through ours one after the other
    rounds: int = 3
    out: str = ""  # file for the figures as JSON
    smoke: bool = False  # the tiny model, a few tokens


def run(cfg: Config) -> dict:
    check_limits(cfg, LIMITS)
    if cfg.rows % cfg.micro_batches:
        raise InputError(f"--micro-batches {cfg.micro_batches} does not divide --rows {cfg.rows}: give a divisor")
    console = Console(highlight=False)
    config, params, tokenizer = load_model(cfg.model)
    problems = load_task("grade-school").train
    ids = list(chain(*(tokenizer.encode(f"{problem.question}\n{problem.solution}\n") for problem in problems)))
    texts = [ids[i * cfg.length : (i + 1) * cfg.length] for i in range(cfg.rows)]
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_folder(folder, params, config, tokenizer)
        del params
        ours = partial(our_sft_step, folder, texts, micro_batches=cfg.micro_batches)
        peer = partial(trainer_step, folder, texts, rounds=cfg.rounds + 1)
        contenders = ready({"jaxreason": ours, "transformers": peer}, console)
        return contest(contenders, cfg, console, work=cfg.rows * cfg.length, unit="tokens/s")


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

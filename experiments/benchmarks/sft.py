"""How long does a step of supervised fine-tuning take, and how much memory, beside transformers' `Trainer`?

    python experiments/benchmarks/sft.py
    python experiments/benchmarks/sft.py --task gsm8k

Same weights, texts, optimiser and precision, in turns, each in its own process. The texts fill our rows: by default a
text each, all of it learned; with `--task` as many worked problems as our rows hold, of which the answers are learned,
and of which the peer has a row each, padded to the longest. A peer that is not installed is named.
"""

import os
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from peers import our_sft_step, trainer_step
from rich.console import Console
from timing import benchmark, start_workers

from jaxreason.data import filter_or_truncate, first_fit
from jaxreason.errors import InputError
from jaxreason.runs import check_limits, defaults, flag, main
from jaxreason.tasks import load_task, messages
from jaxreason.text import Document, Tokenizer, encode_answer, encode_prompt, prompt_completion
from jaxreason.weights import load_model, save_folder

flag_defaults = defaults(smoke={"model": "tiny", "rows": 4, "length": 160, "rounds": 1, "micro_batches": 2})


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"
    task: str = ""  # of the worked problems; gsm8k needs its file or a network
    rows: int = flag(16, 1)
    length: int = flag(256, 2)  # tokens of every row
    micro_batches: int = flag(8, 1)  # parts of the rows that go through ours one after the other
    rounds: int = flag(3, 1)
    out: str = ""  # file for the figures as JSON
    smoke: bool = False  # the tiny model, a few tokens


def run(cfg: Config) -> dict:
    check_limits(cfg)
    if cfg.rows % cfg.micro_batches:
        raise InputError(f"--micro-batches {cfg.micro_batches} does not divide --rows {cfg.rows}: give a divisor")
    console = Console(highlight=False)
    config, params, tokenizer = load_model(cfg.model)
    documents = worked(cfg, tokenizer) if cfg.task else whole(cfg, tokenizer)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_folder(folder, params, config, tokenizer)
        del params
        sizes = {"rows": cfg.rows, "length": cfg.length, "micro_batches": cfg.micro_batches}
        ours = partial(our_sft_step, folder, documents, **sizes)
        peer = partial(trainer_step, folder, documents, rounds=cfg.rounds + 1)
        contenders = start_workers({"jaxreason": ours, "transformers": peer}, console)
        tokens = sum(len(document.tokens) for document in documents)
        console.print(f"{len(documents)} texts of {tokens} tokens")
        return benchmark(contenders, cfg, console, work=tokens, unit="tokens/s")


def whole(cfg: Config, tokenizer: Tokenizer) -> list[Document]:
    """A text that fills it for each row."""
    problems = load_task("grade-school").train
    ids = list(chain(*(tokenizer.encode(f"{problem.question}\n{problem.solution}\n") for problem in problems)))
    return [Document(ids[i * cfg.length : (i + 1) * cfg.length]) for i in range(cfg.rows)]


def worked(cfg: Config, tokenizer: Tokenizer) -> list[Document]:
    """The first worked problems of the task that the rows have room for."""
    task = load_task(cfg.task, os.environ.get("JAXREASON_DATA"))
    documents = []
    for problem in task.train[: cfg.rows * cfg.length // 16]:  # none is shorter
        prompt, answer = messages(task, problem), f"{problem.solution}\n#### {problem.answer}"
        documents.append(prompt_completion(encode_prompt(tokenizer, prompt), encode_answer(tokenizer, prompt, answer)))
    documents, _ = filter_or_truncate(documents, cfg.length, truncate=True)
    return [document for document, *_ in first_fit(documents, rows=cfg.rows, length=cfg.length)]


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

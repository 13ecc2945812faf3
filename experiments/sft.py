"""What does a language model learn from worked solutions?

    python experiments/sft.py
    python experiments/sft.py --model smollm2-135m --lessons my_conversations.jsonl

Supervised fine-tuning: the loss is on the answers only, the token that ends them included; texts are packed into rows
in which none sees another. Without `--lessons` they are the task's training problems with their own solutions. The
default takes a model that answers without thinking aloud, and is done in a minute or two on two CPU cores. Leaves out:
sampling lessons by weight.
"""

from dataclasses import dataclass
from functools import partial
from math import inf

from jaxreason.data import filter_or_truncate, load_sft_jsonl
from jaxreason.errors import InputError
from jaxreason.runs import PRETRAINED_DEFAULTS, SMOKE_DEFAULTS, Study, Tuning, main, presets
from jaxreason.text import Document
from jaxreason.training import sft_loss, shuffled_stream, text_steps


@dataclass(frozen=True)
class Config(Tuning):
    examples: int = 0  # training problems whose solutions are learned; 0: all
    lessons: str = ""  # JSONL of messages, or prompt and completion; empty: the task's own solutions
    rows: int = 32  # of packed texts in a step
    length: int = 128  # tokens a row
    micro_batches: int = 4  # parts of the rows that go through one after the other: the same step, less memory
    truncate: bool = False  # cut lessons that are longer than a row


LIMITS = dict.fromkeys(("rows", "micro_batches"), (1, inf)) | {"length": (2, inf), "examples": (0, inf)}
PRESETS = presets(real=PRETRAINED_DEFAULTS, smoke=SMOKE_DEFAULTS | {"rows": 4, "micro_batches": 1})


def run(cfg: Config) -> dict:
    study = Study(cfg, "sft", LIMITS)
    if cfg.rows % cfg.micro_batches:
        raise InputError(f"--micro-batches {cfg.micro_batches} does not divide --rows {cfg.rows}: give a divisor")
    texts = load_sft_jsonl(cfg.lessons, study.tokenizer) if cfg.lessons else solutions(study)
    texts, cut = filter_or_truncate(texts, cfg.length, truncate=cfg.truncate)
    study.console.print(f"{len(texts)} lessons, {cut} of them cut to {cfg.length} tokens")
    update = study.updates(partial(sft_loss, model=study.model), micro_batches=cfg.micro_batches)
    sizes = {"steps": cfg.steps, "rows": cfg.rows, "length": cfg.length}
    return study.run(partial(text_steps, documents=partial(shuffled_stream, texts), update=update, **sizes))


def solutions(study: Study) -> list[Document]:
    """The task's training problems with the solutions that people, or its generator, wrote."""
    solved = [problem for problem in study.task.train if problem.solution]
    if not solved:
        raise InputError(f"--task {study.task.name} has no worked solutions: give --lessons FILE")
    chosen = solved[: study.cfg.examples or len(solved)]
    return [study.lesson(problem, f"{problem.solution}\n#### {problem.answer}") for problem in chosen]


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

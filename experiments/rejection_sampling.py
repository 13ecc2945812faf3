"""Can a language model teach itself with a verifier's help?

    python experiments/rejection_sampling.py
    python experiments/rejection_sampling.py --model smollm2-135m --rounds 1 --problems 200

Rejection-sampling fine-tuning (RFT, arXiv 2308.01825; with several rounds as in STaR, arXiv 2203.14465): the model
samples solutions of training problems, the verifier keeps the right ones, each text once and a few for a problem, and
the model is fine-tuned on them; then again. Each round goes on from the last one's parameters, not from the first
ones as STaR does. Leaves out STaR's hints.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import inf

import jax
import jax.numpy as jnp

from jaxreason.data import filter_correct, filter_or_truncate
from jaxreason.errors import InputError
from jaxreason.models import merge_trees
from jaxreason.runs import PRETRAINED_DEFAULTS, SMOKE_DEFAULTS, Study, Tuning, main, presets
from jaxreason.training import TrainState, sft_loss, shuffled_stream, text_steps


@dataclass(frozen=True)
class Config(Tuning):
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    learning_rate: float = 2e-4
    rounds: int = 2  # the steps are shared out among them
    problems: int = 1000  # training problems that are sampled in each round, other ones every time
    samples: int = 4  # completions of each
    keep: int = 2  # right ones that are learned, at most, of each problem
    rows: int = 32  # of packed texts in a step
    length: int = 160  # tokens a row
    micro_batches: int = 4  # parts of the rows that go through one after the other: the same step, less memory


LIMITS = dict.fromkeys(("rounds", "problems", "samples", "keep", "rows", "micro_batches"), (1, inf))
LIMITS |= {"length": (2, inf)}
PRESETS = presets(real=PRETRAINED_DEFAULTS, smoke=SMOKE_DEFAULTS | {"problems": 16, "rows": 4, "micro_batches": 1})


def run(cfg: Config) -> dict:
    study = Study(cfg, "rejection_sampling", LIMITS)
    return study.run(partial(steps, cfg=cfg, study=study))


def steps(state: TrainState, *, cfg: Config, study: Study) -> Iterator:
    """Round after round; what a round learns is written down when it begins, and read from there after a restart."""
    update = study.updates(partial(sft_loss, model=study.model), micro_batches=cfg.micro_batches)
    each = -(-cfg.steps // cfg.rounds)
    while int(state.step) < cfg.steps:
        number = int(state.step) // each
        if int(state.step) % each == 0:
            state = state._replace(position=jnp.zeros_like(state.position))
        kept = study.folder.load_or_compute(f"round_{number}.json", partial(written, state, number, cfg, study))
        texts, _ = filter_or_truncate(study.lessons(kept), cfg.length, truncate=False)
        last = min(cfg.steps, (number + 1) * each)
        sizes = {"steps": last, "rows": cfg.rows, "length": cfg.length}
        for state, metrics in text_steps(state, partial(shuffled_stream, texts), update=update, **sizes):  # noqa: B020
            yield state, metrics | {"round": number}


def written(state: TrainState, number: int, cfg: Config, study: Study) -> list[dict]:
    """Right solutions of this round's problems, by the model as it is."""
    train = study.task.train
    problems = [train[i % len(train)] for i in range(number * cfg.problems, (number + 1) * cfg.problems)]
    key = jax.random.fold_in(state.key, state.step)
    params = merge_trees(study.frozen, state.params)
    answers = study.written(f"round {number}", params, problems, group_size=cfg.samples, key=key)
    kept = filter_correct(answers, most=cfg.keep)
    study.console.print(f"{len(kept)} of them are learned")
    if not kept:
        raise InputError(f"none of {len(answers)} answers is right: give more --problems or an easier --task")
    return kept


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""What does a language model learn from pairs of a better and a worse answer?

    python experiments/dpo.py
    python experiments/dpo.py --model tiny-base --writers tiny,tiny-base --kinds 'tiny right>tiny-base wrong'
    python experiments/dpo.py --pairs my_pairs.jsonl --loss simpo

The `--writers` answer training problems, the verifier says which answers are right, and pairs are formed by who wrote
each side and whether it is right, so that mixtures of sources can be compared. They are written to OUT/pairs.jsonl, a
file that `--pairs` reads. Reference log-probabilities are computed once, before training, and kept. By default the
small reasoner that ships with the package learns from its own answers, in a minute or two on two CPU cores.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import jax
import numpy as np

from jaxreason.data import PreferencePair, load_preference_jsonl, make_pairs, source
from jaxreason.distributed.mesh import jit_batch_sharded
from jaxreason.errors import InputError
from jaxreason.models import Transformer, fuse
from jaxreason.objectives.preference import dpo, ipo, simpo
from jaxreason.runs import PRETRAINED_DEFAULTS, SMOKE_DEFAULTS, Study, Tuning, choose, main, presets, write_text
from jaxreason.tasks import Problem, messages
from jaxreason.training import completion_logps, pair_loss, pair_steps, score_pairs
from jaxreason.weights import load_model


@dataclass(frozen=True)
class Config(Tuning):
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    steps: int = 60
    learning_rate: float = 2e-5
    pairs: str = ""  # JSONL of prompt, chosen and rejected; empty: the writers' answers
    writers: str = ""  # models whose answers are paired, with commas between; empty: --model
    kinds: str = ""  # 'WRITER right>WRITER wrong', several with commas between; empty: --model's own
    problems: int = 1000  # training problems that each writer answers
    samples: int = 4  # answers to each
    keep: int = 1  # pairs of each kind, at most, of each problem
    loss: str = "dpo"  # dpo, ipo or simpo
    beta: float = 0.1  # how far the policy may go from the reference, inversely; simpo's usual values are 2 to 10
    label_smoothing: float = 0.0  # of dpo: share of the pairs supposed to be the wrong way round
    gamma: float = 0.5  # of simpo: margin that is asked for
    pairs_per_step: int = 32


LIMITS = dict.fromkeys(("problems", "samples", "keep", "pairs_per_step"), (1, inf))
LIMITS |= {"beta": (1e-6, inf), "label_smoothing": (0, 0.5), "gamma": (0, inf)}
PRESETS = presets(
    real=PRETRAINED_DEFAULTS,
    smoke=SMOKE_DEFAULTS | {"problems": 24, "samples": 4, "pairs_per_step": 4, "max_tokens": 40},
)


def run(cfg: Config) -> dict:
    study = Study(cfg, "dpo", LIMITS)
    losses = {"dpo": partial(dpo, beta=cfg.beta, label_smoothing=cfg.label_smoothing)}
    losses |= {"ipo": partial(ipo, beta=cfg.beta), "simpo": partial(simpo, beta=cfg.beta, gamma=cfg.gamma)}
    preference = choose("loss", cfg.loss, losses)
    file = Path(cfg.pairs) if cfg.pairs else study.folder.path / "pairs.jsonl"
    if not file.exists() and not cfg.pairs:
        write_pairs(cfg, study, study.task.train[: cfg.problems], file)
    pairs = load_preference_jsonl(file, study.tokenizer)
    study.console.print(f"{len(pairs)} pairs: {counted(pairs)}")
    score = jit_batch_sharded(partial(completion_logps, model=study.model), study.mesh)
    scored = partial(score_pairs, study.base, pairs, pairs_per_step=cfg.pairs_per_step, score=score)
    reference = np.array(study.folder.load_or_compute("reference_logps.json", lambda: scored().tolist()), np.float32)
    update = study.updates(partial(pair_loss, model=study.model, preference=preference))
    sizes = {"steps": cfg.steps, "pairs_per_step": cfg.pairs_per_step}
    return study.run(partial(pair_steps, pairs=pairs, reference_logps=reference, update=update, **sizes))


def write_pairs(cfg: Config, study: Study, problems: Sequence[Problem], file: Path) -> None:
    """The writers' answers to `problems`, verified and paired."""
    writers = cfg.writers.split(",") if cfg.writers else [cfg.model]
    kinds = [tuple(kind.split(">")) for kind in (cfg.kinds or f"{cfg.model} right>{cfg.model} wrong").split(",")]
    known = [f"{writer} {verdict}" for writer in writers for verdict in ("right", "wrong")]
    for kind in kinds:
        if len(kind) != 2 or not set(kind) <= set(known):
            raise InputError(f"--kinds {'>'.join(kind)!r} is not 'A>B' of two among {', '.join(known)}")
    samples = []
    for writer in writers:
        config, params, tokenizer = load_model(writer)
        how = {"model": Transformer(config, study.model.dtype), "tokenizer": tokenizer}
        key = jax.random.key(cfg.seed)
        answers = study.written(writer, fuse(params), problems, group_size=cfg.samples, key=key, **how)
        samples += [sample | {"model": writer} for sample in answers]
    asked = {problem.index: messages(study.task, problem, cfg.shots) for problem in problems}
    pairs = make_pairs(samples, kinds, most=cfg.keep)
    if not pairs:
        raise InputError(f"no problem has answers of both sides of {cfg.kinds or kinds}: give more --problems")
    lines = (
        {
            "prompt": asked[chosen["index"]],
            "chosen": chosen["completion"],
            "rejected": rejected["completion"],
            "chosen_source": source(chosen),
            "rejected_source": source(rejected),
        }
        for chosen, rejected in pairs
    )
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines))


def counted(pairs: list[PreferencePair]) -> str:
    kinds = [">".join(pair.sources) for pair in pairs]
    return ", ".join(f"{kinds.count(kind)} {kind if kind != '>' else 'of a file'}" for kind in dict.fromkeys(kinds))


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

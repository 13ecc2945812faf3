"""What does a language model learn from pairs of a better and a worse completion?

    python experiments/dpo.py
    python experiments/dpo.py --model tiny-base --generators tiny,tiny-base --pair-types 'tiny right>tiny-base wrong'
    python experiments/dpo.py --pairs my_pairs.jsonl --loss simpo

The `--generators` answer training problems, the verifier grades the answers, and pairs are formed by the model of each
side and its grade, so that mixtures of sources can be compared. They are written to OUT/pairs.jsonl, a file that
`--pairs` reads. Reference log-probabilities are computed once, before training, and stored. By default the small
reasoner that is bundled with the package learns from its own completions, in a minute or two on two CPU cores.
"""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from jaxreason import runs
from jaxreason.data import load_preference_jsonl
from jaxreason.distributed.mesh import jit_batch_sharded
from jaxreason.objectives.preference import Preference, dpo, ipo, simpo
from jaxreason.training import completion_logps, next_pairs, pair_batch_metrics, pair_loss, score_pairs

LOSSES = {"dpo": dpo, "ipo": ipo, "simpo": simpo}


@dataclass(frozen=True)
class PreferenceFlags:
    """the loss"""

    loss: str = "dpo"  # dpo, ipo or simpo
    beta: float = runs.flag(0.1, 1e-6)  # inverse distance that the policy may move; simpo's usual values are 2 to 10
    label_smoothing: float = runs.flag(0.0, 0, 0.5)  # dpo: share of the pairs supposed to be the wrong way round
    gamma: float = runs.flag(0.5, 0)  # simpo: target margin


@dataclass(frozen=True)
class Config(runs.TrainConfig):
    model: runs.ModelFlags = runs.ModelFlags(model="tiny")
    pairs: runs.PairFlags = runs.PairFlags()
    preference: PreferenceFlags = PreferenceFlags()
    optimizer: runs.OptimizerFlags = runs.OptimizerFlags(learning_rate=2e-5)
    run: runs.RunFlags = runs.RunFlags(steps=60)


SMOKE = runs.SMOKE_DEFAULTS | {"problems": 24, "samples": 4, "pairs_per_step": 4, "max_tokens": 40}
flag_defaults = runs.defaults(pretrained=runs.PRETRAINED_DEFAULTS, smoke=SMOKE)


def main(cfg: Config) -> dict:
    batch_size = cfg.pairs.pairs_per_step
    with runs.Run(cfg, "dpo") as run:
        preference = make_preference(cfg.preference)
        setup, task = runs.load_setup(cfg), runs.load_task(cfg.data)
        sampler, optimizer = runs.make_sampler(setup, task, cfg), runs.make_optimizer(cfg.optimizer)
        file = Path(cfg.pairs.pairs or run.path / "pairs.jsonl")
        if not (cfg.pairs.pairs or file.exists()):
            runs.write_pairs(run, setup, task, task.train[: cfg.pairs.problems], file)
        pairs = load_preference_jsonl(file, setup.tokenizer)
        run.console.print(f"{len(pairs)} pairs: {runs.count_pair_types(pairs)}")
        score = jit_batch_sharded(completion_logps, setup.model.mesh, model=setup.model)
        scored = partial(score_pairs, setup.params, pairs, pairs_per_step=batch_size, score=score)
        reference = run.load_or_compute("reference_logps.json", lambda: scored().tolist())
        reference_logps = np.array(reference, np.float32)
        update = runs.make_update(setup, pair_loss, optimizer, model=setup.model, preference=preference)

        before = run.load_or_compute(
            "before.json", lambda: runs.evaluate_run(run, "before", setup.params, sampler, task)
        )
        state = run.restore_or(runs.initial_state(setup, optimizer, cfg.run.seed))
        while not run.done(state):
            batch = next_pairs(state, pairs, batch_size, reference_logps)
            state, metrics = update(state, batch)
            run.end_step(state, metrics | pair_batch_metrics(batch))
        if cfg.run.export:
            runs.export_model(setup, state.params, run.path, base=cfg.model.model)
        after = runs.evaluate_run(run, "after", setup.merged(state.params), sampler, task)
        return run.finish(before, after)


@cache
def make_preference(flags: PreferenceFlags) -> Preference:
    """The loss with its settings; cached, so that a second run in this process compiles nothing again."""
    runs.choose("loss", flags.loss, LOSSES)
    if flags.loss == "dpo":
        return partial(dpo, beta=flags.beta, label_smoothing=flags.label_smoothing)
    if flags.loss == "ipo":
        return partial(ipo, beta=flags.beta)
    return partial(simpo, beta=flags.beta, gamma=flags.gamma)


if __name__ == "__main__":
    runs.main(main, Config, __doc__, flag_defaults)

"""Can a model learn to tell right from wrong completions, and is it a reward?

    python experiments/reward_model.py
    python experiments/grpo_gsm8k.py --reward runs/reward_model/tiny-grade-school-0/model

The `--generators` answer training problems, the verifier grades the answers, and a head on the model's last hidden
state learns to prefer right ones (Bradley-Terry; Ouyang et al., arXiv 2203.02155). Measured on pairs of held-out
problems: how often the right completion has the higher reward. OUT/model is a classifier of one label that
`transformers` loads, and a `--reward` of the GRPO experiment, where the verifier's grade is logged beside it. A minute
or two on two CPU cores.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax

from jaxreason import runs
from jaxreason.data import PreferencePair, load_preference_jsonl
from jaxreason.distributed.mesh import gather_to_host, jit_batch_sharded
from jaxreason.evaluation import accuracy_interval, plot_training
from jaxreason.models import Transformer, add_reward_head
from jaxreason.models.partition import ADAPTERS, REWARD_HEAD, partition_rules, shard_params
from jaxreason.tasks import Problem
from jaxreason.training import completion_rewards, next_pairs, pair_batch_metrics, reward_loss, score_pairs
from jaxreason.types import Params
from jaxreason.weights import save_folder


@dataclass(frozen=True)
class Config(runs.TrainConfig):
    model: runs.ModelFlags = runs.ModelFlags(model="tiny")
    pairs: runs.PairFlags = runs.PairFlags(problems=2000, max_per_problem=2)
    optimizer: runs.OptimizerFlags = runs.OptimizerFlags(learning_rate=2e-4)
    run: runs.RunFlags = runs.RunFlags(steps=150)


SMOKE = runs.SMOKE_DEFAULTS | {"problems": 24, "samples": 4, "pairs_per_step": 4, "eval_problems": 24, "max_tokens": 40}
flag_defaults = runs.defaults(pretrained=runs.PRETRAINED_DEFAULTS, smoke=SMOKE)


def main(cfg: Config) -> dict:
    batch_size = cfg.pairs.pairs_per_step
    with runs.Run(cfg, "reward_model") as run:
        language_model, task = runs.load_setup(cfg), runs.load_task(cfg.data)
        setup, optimizer = with_reward_head(language_model, cfg.run.seed), runs.make_optimizer(cfg.optimizer)

        def load_pairs(problems: list[Problem], file: Path) -> list[PreferencePair]:
            if not (file.exists() or str(file) == cfg.pairs.pairs):
                runs.write_pairs(run, language_model, task, problems, file)
            pairs = load_preference_jsonl(file, setup.tokenizer)
            run.console.print(f"{len(pairs)} pairs: {runs.count_pair_types(pairs)}")
            return pairs

        pairs = load_pairs(task.train[: cfg.pairs.problems], Path(cfg.pairs.pairs or run.path / "pairs.jsonl"))
        held_out = load_pairs(task.test[: cfg.evaluation.eval_problems], run.path / "held_out_pairs.jsonl")
        measure = partial(rank_accuracy, model=setup.model, pairs=held_out, pairs_per_step=batch_size)
        update = runs.make_update(setup, reward_loss, optimizer, model=setup.model)

        before = run.load_or_compute("before.json", lambda: measure(setup.merged(setup.trainable)))
        state = run.restore_or(runs.initial_state(setup, optimizer, cfg.run.seed))
        while not run.done(state):
            batch = next_pairs(state, pairs, batch_size)
            state, metrics = update(state, batch)
            run.end_step(state, metrics | pair_batch_metrics(batch))
        after = measure(setup.merged(state.params))
        trained = gather_to_host(state.params)
        params = runs.merged_params(language_model, trained) | {"score": trained["score"]}
        names = ("model", "score")
        save_folder(run.path / "model", {n: params[n] for n in names}, setup.config, setup.tokenizer)
        return report(run, before, after)


def with_reward_head(setup: runs.Setup, seed: int) -> runs.Setup:
    """A new head is trained together with the model, or with its adapters."""
    head, config = add_reward_head(jax.random.key(seed), setup.params, setup.config)
    mesh, lora = setup.model.mesh, setup.lora
    rules = partition_rules(config) if lora is None else ADAPTERS | REWARD_HEAD
    trainable = head if lora is None else lora.adapters | {"score": head["score"]}
    model = Transformer(config, setup.model.dtype, mesh=mesh)
    return setup._replace(model=model, trainable=shard_params(trainable, mesh, rules), rules=rules)


def rank_accuracy(
    params: Params, *, model: Transformer, pairs: list[PreferencePair], pairs_per_step: int
) -> dict[str, float]:
    """How often the chosen completion of a pair has the higher reward, and by how much."""
    score = jit_batch_sharded(completion_rewards, model.mesh, model=model)
    rewards = score_pairs(params, pairs, pairs_per_step=pairs_per_step, score=score)
    accuracy = accuracy_interval(rewards[:, :1] > rewards[:, 1:])
    margin = float((rewards[:, 0] - rewards[:, 1]).mean())
    return {"accuracy": accuracy.mean, "low": accuracy.low, "high": accuracy.high, "n": len(pairs), "margin": margin}


def report(run: runs.Run, before: dict, after: dict) -> dict:
    history, flags = run.folder.metrics(), run.flags
    plot_training(history, run.path / "training.png", title=f"reward model: {flags['model']} on {flags['task']}")
    summary = {"before": before, "after": after, "tokens": sum(row["tokens"] for row in history)}
    summary["wall_seconds"] = sum(row["seconds_step"] for row in history)
    runs.write_json(run.path / "summary.json", summary)
    for label, done in (("before", before), ("after", after)):
        run.console.print(
            f"{label}: {done['accuracy']:.1%} [{done['low']:.1%}, {done['high']:.1%}] of {done['n']} held-out pairs "
            "ranked right"
        )
    run.console.print(f"the reward model: {run.path / 'model'}")
    return summary


if __name__ == "__main__":
    runs.main(main, Config, __doc__, flag_defaults)

"""Can a model learn to tell right from wrong answers, and is it a reward?

    python experiments/reward_model.py
    python experiments/grpo_gsm8k.py --reward runs/reward_model/tiny-grade-school-0/model

The `--writers` answer training problems, the verifier sorts the answers, and a head on the model's last hidden state
learns to prefer right ones (Bradley-Terry; Ouyang et al., arXiv 2203.02155). Measured on pairs of held-out problems:
how often the right answer has the higher reward. OUT/model is a classifier of one label that `transformers` loads, and
a `--reward` of the GRPO experiment, where the verifier's opinion is logged beside it. A minute or two on two CPU cores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import jax
from dpo import counted, write_pairs

from jaxreason.data import PreferencePair, load_preference_jsonl
from jaxreason.distributed.mesh import gather_to_host, jit_batch_sharded
from jaxreason.evaluation import mean_with_se, plot_training
from jaxreason.models import Transformer, add_reward_head, merge_trees, score_rewards
from jaxreason.models.partition import ADAPTERS, REWARD_HEAD, partition_rules, shard_params
from jaxreason.runs import PRETRAINED_DEFAULTS, SMOKE_DEFAULTS, Study, Tuning, main, presets, write_json
from jaxreason.tasks import Problem
from jaxreason.training import pair_steps, reward_loss, score_pairs
from jaxreason.types import Params
from jaxreason.weights import save_folder


@dataclass(frozen=True)
class Config(Tuning):
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    steps: int = 150
    learning_rate: float = 2e-4
    pairs: str = ""  # JSONL of prompt, chosen and rejected; empty: the writers' answers
    writers: str = ""  # models whose answers are paired, with commas between; empty: --model
    kinds: str = ""  # 'WRITER right>WRITER wrong', several with commas between; empty: --model's own
    problems: int = 2000  # training problems that each writer answers
    samples: int = 4  # answers to each
    keep: int = 2  # pairs of each kind, at most, of each problem
    pairs_per_step: int = 32


LIMITS = dict.fromkeys(("problems", "samples", "keep", "pairs_per_step"), (1, inf))
PRESETS = presets(
    real=PRETRAINED_DEFAULTS,
    smoke=SMOKE_DEFAULTS | {"problems": 24, "samples": 4, "pairs_per_step": 4, "eval_problems": 24, "max_tokens": 40},
)


def run(cfg: Config) -> dict:
    study = Study(cfg, "reward_model", LIMITS)
    folder, console = study.folder, study.console
    pairs = verified(cfg, study, study.task.train[: cfg.problems], Path(cfg.pairs or folder.path / "pairs.jsonl"))
    unseen = verified(cfg, study, study.task.test[: cfg.eval_problems], folder.path / "held_out_pairs.jsonl")
    head, config = add_reward_head(jax.random.key(cfg.seed), study.base, study.config)
    initial = head if study.lora is None else study.lora.adapters | {"score": head["score"]}
    study.rules = partition_rules(config) if study.lora is None else ADAPTERS | REWARD_HEAD
    initial = shard_params(initial, study.mesh, study.rules)
    model = Transformer(config, study.model.dtype, mesh=study.mesh)
    measure = partial(ranked_right, model=model, pairs=unseen, pairs_per_step=cfg.pairs_per_step)
    before = folder.load_or_compute("before.json", lambda: measure(merge_trees(study.frozen, initial)))
    update = study.updates(partial(reward_loss, model=model))
    sizes = {"steps": cfg.steps, "pairs_per_step": cfg.pairs_per_step}
    advance = partial(pair_steps, pairs=pairs, update=update, **sizes)
    trained = study.train(initial, advance)
    after = measure(merge_trees(study.frozen, trained))
    params = study.merged(gather_to_host(trained)) | {"score": gather_to_host(trained["score"])}
    save_folder(folder.path / "model", {name: params[name] for name in ("model", "score")}, config, study.tokenizer)
    history = folder.metrics()
    plot_training(history, folder.path / "training.png", title=f"reward model: {cfg.model} on {cfg.task}")
    summary = {"before": before, "after": after, "tokens": sum(row["tokens"] for row in history)}
    summary["wall_seconds"] = sum(row["seconds_update"] for row in history)
    write_json(folder.path / "summary.json", summary)
    for label, done in (("before", before), ("after", after)):
        console.print(f"{label}: {done['accuracy']:.1%} ± {done['se']:.1%} of {done['n']} held-out pairs ranked right")
    console.print(f"the reward model: {folder.path / 'model'}")
    return summary


def verified(cfg: Config, study: Study, problems: Sequence[Problem], file: Path) -> list[PreferencePair]:
    """The pairs in `file`, which are written there first where it is not."""
    if not file.exists() and str(file) != cfg.pairs:
        write_pairs(cfg, study, problems, file)
    pairs = load_preference_jsonl(file, study.tokenizer)
    study.console.print(f"{len(pairs)} pairs: {counted(pairs)}")
    return pairs


def ranked_right(
    params: Params, *, model: Transformer, pairs: list[PreferencePair], pairs_per_step: int
) -> dict[str, float]:
    """How often the chosen side of a pair has the higher reward."""
    score = jit_batch_sharded(
        lambda params, completions: score_rewards(params, *completions[:3], model=model), model.mesh
    )
    rewards = score_pairs(params, pairs, pairs_per_step=pairs_per_step, score=score)
    accuracy, error = mean_with_se((rewards[:, :1] > rewards[:, 1:]).astype(float))
    return {"accuracy": accuracy, "se": error, "n": len(pairs), "margin": float((rewards[:, 0] - rewards[:, 1]).mean())}


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

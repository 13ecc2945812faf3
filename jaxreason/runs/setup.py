"""What a training experiment composes: a loaded model, and functions that sample, score, update and evaluate with
it."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from jaxreason.analysis import LABELLERS, PatternMonitor
from jaxreason.distributed.mesh import jit_batch_sharded, mesh_from_flag
from jaxreason.errors import InputError
from jaxreason.models import ModelConfig, Transformer, fuse, score_completions
from jaxreason.models.lora import Lora, attach_scale, init_lora, merge_trees
from jaxreason.models.partition import ADAPTERS, Rules, check_mesh, partition_rules, shard_params
from jaxreason.objectives.algorithms import Algorithm
from jaxreason.rewards import Reward, numbers
from jaxreason.rewards.intrinsic import IntrinsicReward, label_agreement
from jaxreason.rewards.learned import LearnedReward
from jaxreason.rewards.registry import REWARDS, VERIFIERS
from jaxreason.runs.config import DataFlags, OptimizerFlags, TrainConfig, choose, flatten
from jaxreason.sampling import ProblemSampler, Sampling, check_prompts, make_problem_sampler, transformer_sampler
from jaxreason.tasks import Problem, Task, messages
from jaxreason.tasks import load_task as load_task_by_name
from jaxreason.text import Tokenizer, encode_prompt
from jaxreason.training import TrainState, init_sharded_state
from jaxreason.training.collect import Scorer
from jaxreason.training.state import make_optimizer as adamw
from jaxreason.types import Array, Params, Rollouts
from jaxreason.weights import load_model

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
EVALUATION_SETS = ("held-out", "new_stories")
BATCH_FLAGS = ("prompts_per_step", "pairs_per_step", "rows")
"""Flags that set the size of what is sharded over a mesh."""


Monitor = Callable[[Sequence[Mapping[str, Any]]], dict[str, float]]
"""Rows of a step's completions -> metrics."""


class Setup(NamedTuple):
    """A model ready to be trained."""

    model: Transformer
    params: Params
    """All of it before training, matrices joined (`fuse`), on the mesh."""
    trainable: Params
    """What updates change: `params`, or adapters."""
    frozen: Params
    """What `trainable` overrides: None, or `params` with the adapters' scale."""
    rules: Rules
    """Shardings of `trainable`."""
    tokenizer: Tokenizer
    lora: Lora | None

    @property
    def config(self) -> ModelConfig:
        return self.model.cfg

    def merged(self, trained: Params) -> Params:
        """The model with what was trained of it; the sampler and scoring functions take it."""
        return merge_trees(self.frozen, trained)


def load_setup(cfg: TrainConfig) -> Setup:
    """Loads `--model`, puts it on the mesh, and adds adapters if `--lora-rank` asks for them."""
    flags = flatten(cfg)
    if cfg.model.lora_alpha and not cfg.model.lora_rank:
        raise InputError(f"--lora-alpha {cfg.model.lora_alpha:g} scales no adapters: give --lora-rank too")
    config, loaded, tokenizer = load_model(cfg.model.model)
    mesh = mesh_from_flag(cfg.devices.mesh)
    for name in BATCH_FLAGS:
        if mesh and name in flags:
            check_mesh(mesh, config, name, flags[name])
    remat = cfg.devices.remat and jax.default_backend() != "cpu"
    model = Transformer(config, choose("dtype", cfg.devices.dtype, DTYPES), remat, mesh)
    joined = loaded if mesh and mesh.shape["tensor"] > 1 else fuse(loaded)
    params = shard_params(joined, mesh, partition_rules(config))
    if not cfg.model.lora_rank:
        return Setup(model, params, params, None, partition_rules(config), tokenizer, None)
    rank = cfg.model.lora_rank
    lora = init_lora(jax.random.key(cfg.run.seed), loaded, rank=rank, alpha=cfg.model.lora_alpha or 2.0 * rank)
    lora = lora._replace(adapters=shard_params(lora.adapters, mesh, ADAPTERS))
    return Setup(model, params, lora.adapters, attach_scale(params, lora), ADAPTERS, tokenizer, lora)


def load_task(flags: DataFlags) -> Task:
    return load_task_by_name(flags.task, flags.data or os.environ.get("JAXREASON_DATA"))


def make_optimizer(flags: OptimizerFlags) -> optax.GradientTransformation:
    return adamw(flags.learning_rate, warmup_updates=flags.warmup_updates, max_norm=flags.max_grad_norm)


def initial_state(setup: Setup, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step; it takes over `setup.trainable`."""
    return init_sharded_state(setup.trainable, optimizer, seed, setup.model.mesh, setup.rules)


# --- sampling, scoring, rewards ---


def make_sampler(
    setup: Setup,
    task: Task,
    cfg: TrainConfig,
    *,
    rows: int = 256,
    model: Transformer | None = None,
    tokenizer: Tokenizer | None = None,
) -> ProblemSampler:
    """How the model (or another `model` with its `tokenizer`) answers the task's problems, `rows` completions side by
    side. Refuses problems that leave no room for a completion."""
    flags, model, tokenizer = cfg.sampling, model or setup.model, tokenizer or setup.tokenizer
    sampling = Sampling(flags.temperature, flags.top_k, flags.top_p, flags.min_p)
    sample = transformer_sampler(model, tokenizer, sampling, max_tokens=flags.max_tokens, rows=rows)
    sampler = make_problem_sampler(sample, tokenizer, partial(messages, task, shots=cfg.data.shots))
    problems = chain(task.train, *evaluation_sets(task, cfg).values())
    check_prompts(sampler, problems, max_tokens=flags.max_tokens, config=model.cfg)
    return sampler


def make_scorer(setup: Setup, temperature: float) -> Scorer:
    """`score_completions` of (params, prompts, tokens, mask), jitted and sharded."""
    return jit_batch_sharded(score_completions, setup.model.mesh, model=setup.model, temperature=temperature)


def make_reference(setup: Setup, temperature: float) -> Callable[[Rollouts], Float[Array, "P G T"]]:
    """Log-probabilities under the model before training: a copy, unless adapters leave the original alone."""
    score = make_scorer(setup, temperature)
    params = setup.params if setup.lora is not None else jax.tree.map(jnp.copy, setup.params)
    return lambda rollouts: score(params, rollouts.prompts, rollouts.tokens, rollouts.mask).logps


def make_reward(name: str, task: Task, shots: int = 0) -> Reward | IntrinsicReward:
    """The reward of that name, or the reward model in that folder, prompted as in its training."""
    if not Path(name).is_dir():
        return choose("reward", name, REWARDS)()
    config, params, tokenizer = load_model(name, reward=True)
    return LearnedReward(
        config, params, tokenizer, lambda problem: encode_prompt(tokenizer, messages(task, problem, shots))
    )


def make_graders(reward_name: str, reward: Reward | IntrinsicReward) -> dict[str, Reward]:
    """What is logged beside the reward: the strict and the lenient grade, and a further verifier that is optimised."""
    graders: dict[str, Reward] = {"strict": numbers.strict, "lenient": numbers.lenient}
    return (
        graders
        if isinstance(reward, IntrinsicReward) or reward_name not in VERIFIERS
        else graders | {reward_name: reward}
    )


def needs_scores(algorithm: Algorithm, reward: Reward | IntrinsicReward) -> bool:
    """Whether the policy's own scores of its rollouts are used."""
    return algorithm.needs_policy_scores or isinstance(reward, IntrinsicReward)


def make_monitors(*, patterns: str, reward: str) -> list[Monitor]:
    """What is logged of a step's completions beside the metrics of the rollouts."""
    monitors: list[Monitor] = []
    if patterns:
        monitors.append(PatternMonitor(choose("patterns", patterns, LABELLERS)))
    if reward == "majority":
        monitors.append(label_agreement)
    return monitors


def evaluation_sets(task: Task, cfg: TrainConfig) -> dict[str, list[Problem]]:
    """The held-out sets that a run reports, `--eval-problems` of each."""
    sets = task.held_out
    return {name: sets[name][: cfg.evaluation.eval_problems] for name in EVALUATION_SETS if name in sets}

"""One GRPO step on the host: choose problems, sample, grade, update. The caller logs, evaluates and saves."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxreason.models.lora import overlay
from jaxreason.models.scoring import Scores
from jaxreason.objectives.advantages import constant_groups
from jaxreason.objectives.algorithms import Algorithm
from jaxreason.rewards.grading import Grading, Reward
from jaxreason.sampling.generate import row_keys
from jaxreason.sampling.rollout import Policy, texts
from jaxreason.sampling.schedule import join_parts
from jaxreason.tasks import Problem
from jaxreason.training.state import TrainState
from jaxreason.training.steps import Batch, Metrics, prepare
from jaxreason.types import Params

Update = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
"""The jitted step: `jax.jit(partial(grpo_update, model=..., ...), donate_argnums=0)`."""


class StepResult(NamedTuple):
    state: TrainState
    """After the step; the state that went in was donated."""
    metrics: dict[str, float | int]
    samples: list[dict]
    """Every completion with its question and grades."""


TRAINING, EVALUATION = 0, 1
"""What a run's key is folded with, so that no key serves twice."""


def data_order(state: TrainState, size: int) -> Iterator[int]:
    """The numbers of what comes next, from `state.position` on: a fresh permutation of `size` every epoch."""
    _, key = _keys(state)
    epoch, begin = divmod(int(state.position), size)
    while True:
        yield from np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), size))[begin:].tolist()
        epoch, begin = epoch + 1, 0


def _keys(state: TrainState) -> Key[Array, "2"]:
    """For sampling and for the order of the data."""
    return jax.random.split(jax.random.fold_in(state.key, TRAINING))


def next_problems(
    state: TrainState, problems: Sequence[Problem], prompts: int, groups: int
) -> tuple[list[Problem], Key[Array, "P G"]]:
    """The problems that `state` takes up next and the keys of their completions, both from the state alone."""
    chosen = [problems[i] for i in islice(data_order(state, len(problems)), prompts)]
    position = int(state.position)
    return chosen, row_keys(_keys(state)[0], np.arange(position, position + prompts), groups)


def grpo_steps(
    state: TrainState,
    problems: Sequence[Problem],
    *,
    steps: int,
    prompts_per_step: int,
    groups: int,
    policy: Policy,
    reward: Reward,
    graders: dict[str, Reward],
    algorithm: Algorithm,
    update: Update,
    inner_updates: int = 1,
    reference: Callable[..., Scores] | None = None,
    frozen: Params = None,
) -> Iterator[StepResult]:
    """Steps `state.step` to `steps`; everything random follows from `state`, so a restart repeats them bit for bit.

    `reward` is optimised, `graders` are only logged; `reference` is `score_completions` of the reference model,
    needed where the algorithm has a KL term; what the state trains lies over the `frozen` parameters, if any.
    Docs of the metrics: README, "What a step logs".
    """
    for step in range(int(state.step), steps):
        chosen, keys = next_problems(state, problems, prompts_per_step, groups)

        begin = time.perf_counter()
        prompts = policy.prompts(chosen)
        parts = []
        with Grading(chosen, {reward, *graders.values()}) as grading:
            for done, part in policy.sample.stream(overlay(frozen, state.params), prompts, keys=keys):
                grading.add(done.tolist(), texts(part, policy.tokenizer))
                parts.append((done, part))
            rollouts = join_parts(parts)
            sampled = time.perf_counter()
        grades, rewards = grading.grades, grading.grades[reward]
        graded = time.perf_counter()
        reference_logps = reference and reference(rollouts.prompts, rollouts.tokens, rollouts.mask).logps
        batch = prepare(rollouts, rewards, algorithm, reference_logps)
        state, metrics = update(state, batch)
        agreement = {name: metrics[name] for name in ("logp_difference_mean", "logp_difference_max")}
        for _ in range(inner_updates - 1):
            state, metrics = update(state, batch)
        metrics |= agreement  # sampler and trainer agree before the first update moves the policy, not after it
        state = state._replace(step=state.step + 1, position=state.position + prompts_per_step)
        metrics = {name: float(value) for name, value in metrics.items()}
        updated = time.perf_counter()

        lengths = np.asarray(rollouts.lengths)
        metrics = {
            "step": step + 1,
            "reward_mean": float(rewards.mean()),
            **{f"{name}_share": float(grades[grader].mean()) for name, grader in graders.items()},
            "constant_groups_share": float(np.mean(constant_groups(jnp.asarray(rewards)))),
            "length_mean": float(lengths.mean()),
            "tokens": int(lengths.sum()),
            "tokens_read": int(lengths.sum() + prompts.mask.sum()),
            "truncated_share": float(np.mean(rollouts.truncated)),
            **metrics,
            "seconds_sampling": sampled - begin,
            "seconds_rewards": graded - sampled,
            "seconds_update": updated - graded,
            "tokens_per_second": float(lengths.sum()) / (sampled - begin),
        }
        samples = [
            {
                "step": step + 1,
                "index": problem.index,
                "question": problem.question,
                "answer": problem.answer,
                "completion": grading.completions[p][g],
                "tokens": int(lengths[p, g]),
                "reward": float(rewards[p, g]),
                **{name: float(grades[grader][p, g]) for name, grader in graders.items()},
            }
            for p, problem in enumerate(chosen)
            for g in range(groups)
        ]
        yield StepResult(state, metrics, samples)

"""Learning from given texts: next-token prediction (pre-training and fine-tuning) and preferences between two."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxreason.models.scoring import score_completions, score_packed
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.preference import dpo
from jaxreason.rewards.grading import Reward, grade
from jaxreason.sampling.rollout import Policy, pad_prompts, texts
from jaxreason.tasks import Problem
from jaxreason.text.packing import Document, pack
from jaxreason.training.loop import next_problems
from jaxreason.training.state import TrainState, skipped_updates
from jaxreason.training.steps import Loss, Metrics, Statistics, optimise
from jaxreason.types import Packed, Params, Rollouts


class Texts(NamedTuple):
    packed: Packed
    weights: Float[Array | np.ndarray, "P T"]
    """1 / number of learned tokens of the whole batch on each of them, 0 elsewhere."""


class Pairs(NamedTuple):
    completions: Rollouts
    """Two for each prompt: the chosen, then the rejected one."""
    reference_logps: Float[Array, "P 2"]
    """Of whole completions, under the model before tuning."""
    weights: Float[Array, "P"]
    """1 / number of pairs of the whole batch; 0 where there is nothing to choose."""


def weigh(packed: Packed) -> Texts:
    """The mean over the learned tokens of the batch, fixed before it is cut into micro-batches or over devices."""
    return Texts(packed, packed.mask / np.maximum(packed.mask.sum(), 1).astype(np.float32))


def verified_pairs(
    rollouts: Rollouts, rewards: Float[Array | np.ndarray, "P G"], reference_logps: Float[Array, "P G"]
) -> Pairs:
    """The best and the worst completion of every prompt; a prompt whose completions all earned the same weighs 0."""
    rewards = jnp.asarray(rewards)
    best, worst = jnp.argmax(rewards, axis=1), jnp.argmin(rewards, axis=1)
    members = jnp.stack([best, worst], axis=1)
    prompt = jnp.arange(len(rewards))[:, None]
    completions = rollouts._replace(
        **{name: getattr(rollouts, name)[prompt, members] for name in ("tokens", "mask", "logps", "truncated")}
    )
    differ = best != worst
    return Pairs(completions, reference_logps[prompt, members], differ / jnp.maximum(differ.sum(), 1))


def text_loss(params: Params, batch: Texts, *, model: Transformer) -> tuple[Float[Array, ""], Statistics]:
    """-mean_t log p(token t | its own text before t), over the learned tokens."""
    scores = score_packed(params, batch.packed, model=model)
    loss = -jnp.sum(batch.weights * scores.logps)
    sums = {"loss": loss, "entropy": jnp.sum(batch.weights * scores.entropy)}
    return loss, jax.lax.stop_gradient(Statistics(sums, {}))


def completion_logps(params: Params, completions: Rollouts, *, model: Transformer) -> Float[Array, "P G"]:
    """Log-probability of every completion as a whole."""
    prompts, tokens, mask, *_ = completions
    return score_completions(params, prompts, tokens, mask, model=model).logps.sum(axis=-1)


def dpo_loss(
    params: Params, pairs: Pairs, *, model: Transformer, beta: float = 0.1
) -> tuple[Float[Array, ""], Statistics]:
    """The mean of `dpo` over the pairs."""
    loss, margin = dpo(completion_logps(params, pairs.completions, model=model), pairs.reference_logps, beta=beta)
    means = {"loss": loss, "margin": margin, "accuracy": margin > 0}
    sums = {name: jnp.sum(pairs.weights * values) for name, values in means.items()}
    return sums["loss"], jax.lax.stop_gradient(Statistics(sums, {}))


def supervised_update(
    state: TrainState,
    batch: Texts | Pairs,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    micro_batches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step on `text_loss` or `dpo_loss`, their other arguments filled in; the rest as in `optimise`."""
    state, (sums, _), norm = optimise(
        state, batch, loss=loss, optimizer=optimizer, micro_batches=micro_batches, axis_name=axis_name
    )
    state = state._replace(step=state.step + 1)
    return state, {**sums, "grad_norm": norm, "skipped_updates": skipped_updates(state)}


def text_steps(
    state: TrainState,
    documents: Callable[[int], Iterable[Document]],
    *,
    steps: int,
    rows: int,
    length: int,
    update: Callable[[TrainState, Texts], tuple[TrainState, Metrics]],
) -> Iterator[tuple[TrainState, Metrics]]:
    """Steps `state.step` to `steps`, step i on `rows` rows filled from `documents(i)`: a restart repeats them."""
    for step in range(int(state.step), steps):
        state, metrics = update(state, weigh(pack(documents(step), rows=rows, length=length)))
        yield state, metrics


def preference_steps(
    state: TrainState,
    problems: Sequence[Problem],
    *,
    steps: int,
    prompts_per_step: int,
    groups: int,
    reference: Params,
    policy: Policy,
    reward: Reward,
    score: Callable[[Params, Rollouts], Float[Array, "P G"]],
    update: Callable[[TrainState, Pairs], tuple[TrainState, Metrics]],
) -> Iterator[tuple[TrainState, Metrics]]:
    """Steps `state.step` to `steps` of preferring what a verifier accepts to what it rejects.

    The `reference` model writes `groups` completions of each prompt and gives the reference log-probabilities; `score`
    is the jitted `completion_logps`.
    """
    while int(state.step) < steps:
        chosen, keys = next_problems(state, problems, prompts_per_step, groups)
        rollouts = policy.sample(reference, pad_prompts([policy.encode(problem) for problem in chosen]), keys=keys)
        rewards = grade(texts(rollouts, policy.tokenizer), chosen, reward)
        state, metrics = update(state, verified_pairs(rollouts, rewards, score(reference, rollouts)))
        state = state._replace(position=state.position + prompts_per_step)
        yield state, metrics

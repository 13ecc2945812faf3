"""Updates: the only place where gradients are taken, and GRPO's."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxreason.models.lora import merge_trees
from jaxreason.models.scoring import EncodedPrompts, Scores, encode_prompts, score_given_prompts
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.advantages import constant_groups
from jaxreason.objectives.algorithms import Algorithm, TokenScores, advantages_of, policy_loss
from jaxreason.training.state import TrainState, skipped_updates
from jaxreason.types import Params, Rollouts

Metrics = dict[str, Float[Array, ""]]


class Batch(NamedTuple):
    """Rollouts with everything of the loss that does not depend on the parameters; cut into micro-batches along P."""

    rollouts: Rollouts
    advantages: Float[Array, "P G #T"]
    """Of every token, or [P G 1] of whole completions."""
    weights: Float[Array, "P G T"]
    reference_logps: Float[Array, "P G T"]
    """Zeros where there is no reference model."""


class Statistics(NamedTuple):
    """What a loss reports beside its value, in a form that micro-batches and devices can add up."""

    sums: dict[str, Float[Array, ""]]
    maxima: dict[str, Float[Array, ""]]
    """None of them negative."""


Loss = Callable[[Params, Any], tuple[Float[Array, ""], Statistics]]
"""A pure function of parameters and a batch whose token weights are already fixed, so that parts of it add up."""


def gradient_step(
    state: TrainState,
    batch: Any,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    micro_batches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Statistics, Float[Array, ""]]:
    """One optimiser step; returns the state, the batch's statistics and the gradient's norm.

    `micro_batches` cuts the leading axis of every array of `batch`, which it must divide; the gradients of the parts,
    and of the devices of `axis_name`, add up. `axis_name` is that of a surrounding `jax.pmap` (or `jax.shard_map` with
    `check_vma=False`).
    """
    gradient = jax.value_and_grad(loss, has_aux=True)

    def part(micro: Any) -> tuple[Params, Statistics]:
        (_, statistics), grads = gradient(state.params, micro)
        return grads, statistics

    def accumulate(carry: tuple[Params, Statistics], micro: Any):
        grads, statistics = part(micro)
        sums = jax.tree.map(jnp.add, (carry[0], carry[1].sums), (grads, statistics.sums))
        maxima = jax.tree.map(jnp.maximum, carry[1].maxima, statistics.maxima)
        return (sums[0], Statistics(sums[1], maxima)), None

    # Every part takes prompts from all over the batch: what lies over devices stays where it is.
    micro = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(part, jax.tree.map(lambda x: x[0], micro))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (grads, statistics), _ = jax.lax.scan(accumulate, nothing, micro, unroll=micro_batches == 1)
    if axis_name is not None:
        grads, sums = jax.lax.psum((grads, statistics.sums), axis_name)
        statistics = Statistics(sums, jax.lax.pmax(statistics.maxima, axis_name))
    state, norm = apply_gradients(state, grads, optimizer)
    return state, statistics, norm


def apply_gradients(
    state: TrainState, grads: Params, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    """The optimiser's step along a gradient, and the gradient's norm."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    state = state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)
    return state, optax.tree.norm(grads)


def make_batch(
    rollouts: Rollouts,
    rewards: Float[Array | np.ndarray, "P G"] | Float[Array | np.ndarray, "K P G"],
    algorithm: Algorithm,
    reference_logps: Float[Array, "P G T"] | None = None,
    *,
    policy_scores: Scores | None = None,
    reward_weights: Sequence[float] = (),
) -> Batch:
    """Advantages and token weights, from the whole batch.

    `rewards` are one or several [K P G], then with `reward_weights` (1 each). `reference_logps` are needed where the
    algorithm has a KL, `policy_scores` those
    by the policy before the update where it looks at them (`Algorithm.needs_policy_scores`).
    """
    if algorithm.kl_weight and reference_logps is None:
        raise ValueError(f"kl_weight {algorithm.kl_weight} without reference_logps: give those of the reference model")
    if algorithm.needs_policy_scores and policy_scores is None:
        raise ValueError(
            "the algorithm looks at the policy's own scores: give them as `policy_scores`, from score_completions"
        )
    rewards = jnp.asarray(rewards)
    rewards = rewards.reshape(-1, *rewards.shape[-2:])
    kept = jnp.ones(rewards.shape[1:], bool)
    if algorithm.drop_truncated:
        kept &= ~rollouts.truncated
    if algorithm.drop_constant:
        kept &= ~constant_groups(rewards).all(axis=0)[:, None]
    weights = algorithm.aggregate(rollouts.mask & kept[..., None])
    scores = (policy_scores.logps, policy_scores.entropy) if policy_scores is not None else ()
    known = TokenScores(rollouts.logps, rollouts.mask, reference_logps, *scores)
    advantages = advantages_of(algorithm, rewards, reward_weights or (1.0,) * len(rewards), known)
    if algorithm.importance:
        rollouts = rollouts._replace(logps=policy_scores.logps)
    if reference_logps is None:
        reference_logps = jnp.zeros_like(rollouts.logps)
    return Batch(rollouts, advantages, weights, reference_logps)


def grpo_loss(
    params: Params, batch: Batch, *, model: Transformer, algorithm: Algorithm, temperature: float
) -> tuple[Float[Array, ""], Statistics]:
    """`policy_loss` of rollouts under `params`; a pure function of arrays.

    The statistics are sums over tokens, which parts of a batch add up; `grpo_metrics` makes means of them.
    """
    read = encode_prompts(params, batch.rollouts.prompts, model=model)
    return loss_after(params, read, batch, model=model, algorithm=algorithm, temperature=temperature)


def loss_after(
    params: Params, read: EncodedPrompts, batch: Batch, *, model: Transformer, algorithm: Algorithm, temperature: float
) -> tuple[Float[Array, ""], Statistics]:
    """`grpo_loss` of prompts that are `read`, as a function of both."""
    prompts, tokens, mask, old_logps, _ = batch.rollouts
    scores = score_given_prompts(params, read, prompts, tokens, mask, model=model, temperature=temperature)
    how = {"old_logps": old_logps, "reference_logps": batch.reference_logps, "advantages": batch.advantages}
    how |= {"weights": batch.weights, "mask": mask}
    loss, lost, kl = policy_loss(algorithm, scores.logps, scores.entropy, **how)
    mismatch = jnp.abs(scores.logps - old_logps)
    per_token = {"kl": kl, "entropy": scores.entropy, "clipped": lost, "mismatch": mismatch}
    sums = {name: jnp.sum(jnp.where(mask, x, 0.0)) for name, x in per_token.items()}
    worst = jnp.max(jnp.where(mask, mismatch, 0.0))
    statistics = Statistics(sums | {"loss": loss, "tokens": mask.sum()}, {"mismatch": worst})
    return loss, jax.lax.stop_gradient(statistics)


def grpo_update(
    state: TrainState,
    batch: Batch,
    *,
    model: Transformer,
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    temperature: float = 1.0,
    frozen: Params = None,
    micro_batches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step of the algorithm on `batch`; for the last two arguments see `gradient_step`.

    Micro-batches and devices take whole prompts: a group is never separated from its prompt. What the state trains
    lies over the `frozen` parameters, if any (`jaxreason.models.lora`); hand these to the jitted function, as arrays
    that a jitted function merely closes over are compiled into it.
    """

    def loss(params: Params, batch: Batch) -> tuple[Float[Array, ""], Statistics]:
        how = {"model": model, "algorithm": algorithm, "temperature": temperature}
        return grpo_loss(merge_trees(frozen, params), batch, **how)

    state, statistics, norm = gradient_step(
        state, batch, loss=loss, optimizer=optimizer, micro_batches=micro_batches, axis_name=axis_name
    )
    return state, grpo_metrics(state, statistics, norm)


def grpo_metrics(state: TrainState, statistics: Statistics, norm: Float[Array, ""]) -> Metrics:
    """What an update reports, from the sums over its tokens."""
    sums, maxima = statistics
    tokens = jnp.maximum(sums["tokens"], 1)
    return {
        "loss": sums["loss"],
        "kl": sums["kl"] / tokens,
        "entropy": sums["entropy"] / tokens,
        "clip_fraction": sums["clipped"] / tokens,
        "grad_norm": norm,
        "logp_difference_mean": sums["mismatch"] / tokens,
        "logp_difference_max": maxima["mismatch"],
        "skipped_updates": skipped_updates(state),
    }

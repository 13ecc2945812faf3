"""Updates: the only place where gradients are taken.

Token weights are fixed for the whole batch before it is cut, so that the gradients of micro-batches, or of devices, add
up to the gradient of the whole. An update counts its batch: `step` grows by one and `position` by what was consumed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int

from jaxreason.models.lora import merge_trees
from jaxreason.models.scoring import EncodedPrompts, encode_prompts, score_given_prompts
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.algorithms import Algorithm, policy_loss
from jaxreason.training.batch import Batch
from jaxreason.training.state import TrainState, skipped_updates
from jaxreason.types import Array, Params

Metrics = dict[str, Float[Array, ""]]


class LossStats(NamedTuple):
    """What a loss reports beside its value, in a form that micro-batches and devices can merge."""

    sums: dict[str, Float[jax.Array, ""]]
    maxima: dict[str, Float[jax.Array, ""]]
    """None of them negative."""


Loss = Callable[[Params, Any], tuple[Float[Array, ""], LossStats]]
"""A pure function of parameters and a batch whose token weights are already fixed."""


class GradAccumulator(NamedTuple):
    """The gradient and the statistics of the micro-batches so far."""

    grads: Params
    stats: LossStats

    def add(self, grads: Params, stats: LossStats) -> "GradAccumulator":
        grads, sums = jax.tree.map(jnp.add, (self.grads, self.stats.sums), (grads, stats.sums))
        return GradAccumulator(grads, LossStats(sums, jax.tree.map(jnp.maximum, self.stats.maxima, stats.maxima)))


def gradient_step(
    state: TrainState,
    batch: Any,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    micro_batches: int = 1,
    axis_name: str | None = None,
    applied: Bool[Array, ""] | bool = True,
) -> tuple[TrainState, LossStats, Float[Array, ""]]:
    """One optimiser step, where it is `applied`; returns the state, the batch's statistics and the gradient's norm.

    `micro_batches` splits the leading axis of every array of `batch` and must divide it; gradients of the parts, and of
    the devices of `axis_name`, add up. `axis_name` is that of a surrounding `jax.pmap` (or `jax.shard_map` with
    `check_vma=False`).
    """
    gradient = jax.value_and_grad(loss, has_aux=True)

    def micro_gradient(micro: Any) -> tuple[Params, LossStats]:
        (_, stats), grads = gradient(state.params, micro)
        return grads, stats

    def accumulate(sofar: GradAccumulator, micro: Any) -> tuple[GradAccumulator, None]:
        return sofar.add(*micro_gradient(micro)), None

    # Strided micro-batches keep rows on their device.
    micro = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(micro_gradient, jax.tree.map(lambda x: x[0], micro))
    empty = GradAccumulator(*jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    (grads, stats), _ = jax.lax.scan(accumulate, empty, micro, unroll=micro_batches == 1)
    if axis_name is not None:
        grads, sums = jax.lax.psum((grads, stats.sums), axis_name)
        stats = LossStats(sums, jax.lax.pmax(stats.maxima, axis_name))
    state, norm = apply_gradients(state, grads, optimizer, applied)
    return state, stats, norm


def apply_gradients(
    state: TrainState, grads: Params, optimizer: optax.GradientTransformation, applied: Bool[Array, ""] | bool = True
) -> tuple[TrainState, Float[Array, ""]]:
    """The optimiser's step along a gradient, and the gradient's norm. Where it is not `applied`, parameters and moments
    stay as they are, bit for bit."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new = optax.apply_updates(state.params, updates), opt_state
    params, opt_state = jax.tree.map(lambda x, old: jnp.where(applied, x, old), new, (state.params, state.opt_state))
    return state._replace(params=params, opt_state=opt_state), optax.tree.norm(grads)


def has_signal(batch: Batch) -> Bool[Array, ""]:
    """Whether any token of the batch has an advantage; scalar."""
    return jnp.any(batch.advantages * batch.weights != 0)


def count_batch(state: TrainState, consumed: Int[Array, "*parts"], axis_name: str | None = None) -> TrainState:
    """One more step, `consumed` more examples; devices of `axis_name` each say what they consumed."""
    total = jnp.sum(consumed) if axis_name is None else jax.lax.psum(jnp.sum(consumed), axis_name)
    return state._replace(step=state.step + 1, position=state.position + total.astype(state.position.dtype))


def grpo_loss(
    params: Params, batch: Batch, *, model: Transformer, algorithm: Algorithm, temperature: float
) -> tuple[Float[Array, ""], LossStats]:
    """`policy_loss` of rollouts under `params`; a pure function of arrays.

    The statistics are sums over tokens; `grpo_metrics` makes means of them.
    """
    encoded = encode_prompts(params, batch.rollouts.prompts, model=model)
    return loss_given_prompts(params, encoded, batch, model=model, algorithm=algorithm, temperature=temperature)


def loss_given_prompts(
    params: Params,
    encoded: EncodedPrompts,
    batch: Batch,
    *,
    model: Transformer,
    algorithm: Algorithm,
    temperature: float,
) -> tuple[Float[Array, ""], LossStats]:
    """`grpo_loss` as a function of the parameters and of the prompts they encoded."""
    prompts, tokens, mask, old_logps, _ = batch.rollouts
    scores = score_given_prompts(params, encoded, prompts, tokens, mask, model=model, temperature=temperature)
    loss, clip_mask, kl = policy_loss(
        algorithm,
        scores.logps,
        scores.entropy,
        old_logps=old_logps,
        reference_logps=batch.reference_logps,
        advantages=batch.advantages,
        weights=batch.weights,
        mask=mask,
    )
    mismatch = jnp.abs(scores.logps - old_logps)
    per_token = {"kl": kl, "entropy": scores.entropy, "clipped": clip_mask, "mismatch": mismatch}
    sums = {name: jnp.sum(jnp.where(mask, x, 0.0)) for name, x in per_token.items()}
    worst = jnp.max(jnp.where(mask, mismatch, 0.0))
    stats = LossStats(sums | {"loss": loss, "tokens": mask.sum()}, {"mismatch": worst})
    return loss, jax.lax.stop_gradient(stats)


def grpo_update(
    state: TrainState,
    batch: Batch,
    *,
    model: Transformer,
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    temperature: float = 1.0,
    inner_updates: int = 1,
    frozen: Params = None,
    micro_batches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Learns from `batch` in `inner_updates` optimiser steps, which are one step of the run; for the last two arguments
    see `gradient_step`.

    Micro-batches and devices take whole prompts: a group is never separated from its prompt. A batch without any
    advantage moves nothing, KL and entropy terms included: Adam would scale their rounding noise up to whole steps.
    (The papers say nothing of it; TRL and verl take the step.) `state.params` override `frozen` (LoRA); pass `frozen`
    to the jitted function, since arrays that it closes over are compiled into it.
    """

    def loss(params: Params, batch: Batch) -> tuple[Float[Array, ""], LossStats]:
        params = merge_trees(frozen, params)
        return grpo_loss(params, batch, model=model, algorithm=algorithm, temperature=temperature)

    each, applied = [], has_signal(batch)
    if axis_name is not None:
        applied = jax.lax.pmax(applied.astype(jnp.int32), axis_name) > 0
    for _ in range(inner_updates):
        state, stats, norm = gradient_step(
            state,
            batch._replace(consumed=None),
            loss=loss,
            optimizer=optimizer,
            micro_batches=micro_batches,
            axis_name=axis_name,
            applied=applied,
        )
        each.append(grpo_metrics(state, stats, norm, applied))
    return count_batch(state, jnp.asarray(batch.consumed), axis_name), merge_inner_metrics(each)


def grpo_metrics(
    state: TrainState, stats: LossStats, norm: Float[Array, ""], applied: Bool[Array, ""] | bool
) -> Metrics:
    """What an optimiser step reports, from the sums over its tokens; `idle_batch` is 1 where it was not `applied`."""
    sums, maxima = stats
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
        "idle_batch": 1.0 - jnp.asarray(applied, jnp.float32),
    }


def merge_inner_metrics(each: list[Metrics]) -> Metrics:
    """The last inner update's, but the first one's agreement of sampler and trainer: later the policy has moved."""
    return each[-1] | {name: each[0][name] for name in ("logp_difference_mean", "logp_difference_max")}


def supervised_update(
    state: TrainState,
    batch: Any,
    *extra: Any,
    loss: Callable[..., tuple[Float[Array, ""], LossStats]],
    optimizer: optax.GradientTransformation,
    frozen: Params = None,
    micro_batches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step on `loss(params, batch, *extra)`, its settings filled in: `sft_loss`, `pair_loss`, `distill_loss`, ...

    `extra` are arrays that are not cut into micro-batches, such as a teacher's parameters. `state.params` override
    `frozen` (LoRA). The rest as in `gradient_step`.
    """

    def merged_loss(params: Params, batch: Any) -> tuple[Float[Array, ""], LossStats]:
        return loss(merge_trees(frozen, params), batch, *extra)

    state, (sums, _), norm = gradient_step(
        state,
        batch._replace(consumed=None),
        loss=merged_loss,
        optimizer=optimizer,
        micro_batches=micro_batches,
        axis_name=axis_name,
    )
    state = count_batch(state, batch.consumed, axis_name)
    return state, {**sums, "grad_norm": norm, "skipped_updates": skipped_updates(state)}

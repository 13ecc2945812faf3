"""Updates: the only place where gradients are taken."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxreason.models.scoring import Scores, score_completions
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.advantages import constant_groups
from jaxreason.objectives.algorithms import Algorithm
from jaxreason.training.state import TrainState, skipped_updates
from jaxreason.types import Params, Rollouts

Metrics = dict[str, Float[Array, ""]]


class Batch(NamedTuple):
    """Rollouts with everything of the loss that does not depend on the parameters; cut into micro-batches along P."""

    rollouts: Rollouts
    advantages: Float[Array, "P G"]
    weights: Float[Array, "P G T"]
    reference_logps: Float[Array, "P G T"]
    """Zeros where the algorithm has no KL term."""


class TokenStatistics(NamedTuple):
    """Sums over completion tokens, so that micro-batches and devices add up; `worst` is a maximum."""

    loss: Float[Array, ""]
    kl: Float[Array, ""]
    entropy: Float[Array, ""]
    clipped: Float[Array, ""]
    mismatch: Float[Array, ""]
    worst: Float[Array, ""]


def add(a: TokenStatistics, b: TokenStatistics) -> TokenStatistics:
    return jax.tree.map(jnp.add, a, b)._replace(worst=jnp.maximum(a.worst, b.worst))


def prepare(
    rollouts: Rollouts,
    rewards: Float[Array | np.ndarray, "P G"],
    algorithm: Algorithm,
    reference_logps: Float[Array, "P G T"] | None = None,
) -> Batch:
    """Advantages and token weights, from the whole batch."""
    rewards = jnp.asarray(rewards)
    kept = jnp.ones(rewards.shape, bool)
    if algorithm.drop_truncated:
        kept &= ~rollouts.truncated
    if algorithm.drop_constant:
        kept &= ~constant_groups(rewards)[:, None]
    weights = algorithm.aggregate(rollouts.mask & kept[..., None])
    if reference_logps is None:
        reference_logps = jnp.zeros_like(rollouts.logps)
    return Batch(rollouts, algorithm.advantage(rewards), weights, reference_logps)


def grpo_loss(
    params: Params, batch: Batch, *, model: Transformer, algorithm: Algorithm, temperature: float
) -> tuple[Float[Array, ""], TokenStatistics]:
    """sum_t w_t (surrogate_t + β KL_t) over the tokens the policy chose; a pure function of arrays."""
    prompts, tokens, mask, old_logps, _ = batch.rollouts
    scores: Scores = score_completions(params, prompts, tokens, mask, model=model, temperature=temperature)
    old_logps = jnp.where(mask, old_logps, 0.0)
    surrogate = algorithm.surrogate(scores.logps, old_logps, batch.advantages)
    loss, kl = surrogate.loss, jnp.zeros_like(scores.logps)
    if algorithm.kl_weight:
        kl = algorithm.kl(scores.logps, jnp.where(mask, batch.reference_logps, 0.0))
        loss += algorithm.kl_weight * kl
    loss = jnp.sum(jnp.where(mask, batch.weights * loss, 0.0))
    mismatch = jnp.abs(scores.logps - old_logps)

    def total(x: Array) -> Float[Array, ""]:
        return jnp.sum(jnp.where(mask, x, 0.0))

    statistics = TokenStatistics(
        loss, total(kl), total(scores.entropy), total(surrogate.clipped), total(mismatch), worst=mismatch.max()
    )
    return loss, jax.lax.stop_gradient(statistics)


def grpo_update(
    state: TrainState,
    batch: Batch,
    *,
    model: Transformer,
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    temperature: float = 1.0,
    micro_batches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimiser step on `batch`; gradients of the micro-batches, and of the devices of `axis_name`, add up.

    `micro_batches` cuts P, which it must divide; a group is never separated from its prompt. `axis_name` is that of a
    surrounding `jax.pmap` (or `jax.shard_map` with `check_vma=False`) over batches cut along P.
    """
    gradient = jax.value_and_grad(grpo_loss, has_aux=True)

    def accumulate(carry: tuple[Params, TokenStatistics], micro: Batch):
        loss = partial(gradient, model=model, algorithm=algorithm, temperature=temperature)
        (_, statistics), grads = loss(state.params, micro)
        return (jax.tree.map(jnp.add, carry[0], grads), add(carry[1], statistics)), None

    nothing = jax.tree.map(jnp.zeros_like, state.params), TokenStatistics(*[jnp.zeros(())] * 6)
    micro = jax.tree.map(lambda x: x.reshape(micro_batches, -1, *x.shape[1:]), batch)
    (grads, statistics), _ = jax.lax.scan(accumulate, nothing, micro, unroll=micro_batches == 1)

    tokens = batch.rollouts.mask.sum()
    if axis_name is not None:
        grads, tokens = jax.lax.psum((grads, tokens), axis_name)
        worst = jax.lax.pmax(statistics.worst, axis_name)
        statistics = jax.lax.psum(statistics, axis_name)._replace(worst=worst)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    state = state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)
    tokens = jnp.maximum(tokens, 1)
    metrics = {
        "loss": statistics.loss,
        "kl": statistics.kl / tokens,
        "entropy": statistics.entropy / tokens,
        "clip_share": statistics.clipped / tokens,
        "grad_norm": optax.tree.norm(grads),
        "logp_difference_mean": statistics.mismatch / tokens,
        "logp_difference_max": statistics.worst,
        "skipped_updates": skipped_updates(state),
    }
    return state, metrics

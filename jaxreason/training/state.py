"""What training carries from step to step, and the optimiser that advances it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from jaxreason.distributed.mesh import put_global
from jaxreason.models.partition import Rules, shardings
from jaxreason.types import Params


class TrainState(NamedTuple):
    """Everything a checkpoint saves."""

    params: Params
    opt_state: optax.OptState
    step: Int[Array, ""]
    """Finished steps; each consumes one batch of prompts."""
    position: Int[Array, ""]
    """Prompts consumed so far: where the data goes on after a restart."""
    key: Key[Array, ""]
    """Root of all randomness: see `grpo_steps`."""


def make_optimizer(
    learning_rate: float = 1e-6,
    *,
    warmup_updates: int = 0,
    total_updates: int = 0,
    max_norm: float = 1.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW after global-norm clipping, linear warm-up, and no update at all where a gradient is not finite.

    With `total_updates` the rate falls to zero by then, along a cosine; without, it stays after the warm-up.
    Skipped updates leave parameters and moments untouched; `skipped_updates` counts them.
    """
    # The first update already moves: update i of the warm-up has the rate (i + 1) / warmup_updates.
    ramp = optax.linear_schedule(learning_rate / max(warmup_updates, 1), learning_rate, max(warmup_updates - 1, 1))
    rest = optax.constant_schedule(learning_rate)
    if total_updates:
        rest = optax.cosine_decay_schedule(learning_rate, max(total_updates - warmup_updates, 1))
    schedule = optax.join_schedules([ramp, rest], [warmup_updates]) if warmup_updates else rest
    transform = optax.chain(optax.clip_by_global_norm(max_norm), optax.adamw(schedule, weight_decay=weight_decay))
    return skip_not_finite(transform)


class Guarded(NamedTuple):
    skipped: Int[Array, ""]
    """Updates left out so far."""
    inner: optax.OptState


def skip_not_finite(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, but parameters and its state stay as they are where a gradient is not finite.

    `optax.apply_if_finite` branches, and the results of a branch are copies: of all parameters and moments. This
    chooses number by number, in place.
    """

    def init(params: Params) -> Guarded:
        return Guarded(jnp.zeros((), jnp.int32), inner.init(params))

    def update(grads: Params, state: Guarded, params: Params = None) -> tuple[Params, Guarded]:
        finite = jnp.all(jnp.array([jnp.isfinite(grad).all() for grad in jax.tree.leaves(grads)]))
        updates, new = inner.update(grads, state.inner, params)
        updates = jax.tree.map(lambda x: jnp.where(finite, x, 0), updates)
        new = jax.tree.map(lambda x, old: jnp.where(finite, x, old), new, state.inner)
        return updates, Guarded(state.skipped + ~finite, new)

    return optax.GradientTransformation(init, update)


def skipped_updates(state: TrainState) -> Int[Array, ""]:
    return state.opt_state.skipped


def init_state(params: Params, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Before the first step; holds `params` itself, which an update that donates its state takes over."""
    step, position = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # two buffers: each is donated on its own
    return TrainState(params, optimizer.init(params), step, position, jax.random.key(seed))


def init_sharded_state(
    params: Params, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh | None, rules: Rules
) -> TrainState:
    """`init_state` of parameters that are placed."""
    if mesh is None:
        return init_state(params, optimizer, seed)
    where = shardings(jax.eval_shape(partial(init_state, optimizer=optimizer, seed=seed), params), mesh, rules)
    rest = init_state({}, optimizer, seed)._replace(opt_state=None)
    opt_state = jax.jit(optimizer.init, out_shardings=where.opt_state)(params)
    return jax.tree.map(put_global, rest, where._replace(params={}, opt_state=None))._replace(
        params=params, opt_state=opt_state
    )

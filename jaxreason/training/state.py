"""What training carries from step to step, the optimiser that advances it, and the order of the data."""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Int, Key

from jaxreason.distributed.mesh import put_global
from jaxreason.models.partition import Rules, shardings
from jaxreason.types import Array, Params

TRAINING, EVALUATION = 0, 1
"""Folded into a run's key, so that no key serves twice."""


class TrainState(NamedTuple):
    """Everything a checkpoint saves."""

    params: Params
    """What is trained: the model's parameters, or its adapters."""
    opt_state: optax.OptState
    step: Int[Array, ""]
    """Batches learned from; an update counts its batch, whether the optimiser moved or not."""
    position: Int[Array, ""]
    """Examples (prompts, documents, pairs) consumed: where the data goes on after a restart."""
    key: Key[jax.Array, ""]
    """Root of all randomness; step s uses it with `step` or `position` folded in."""


def init_state(params: Params, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step; holds `params` itself, which an update that donates its state takes over."""
    step, position = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # two buffers: each is donated on its own
    return TrainState(params, optimizer.init(params), step, position, jax.random.key(seed))


def init_sharded_state(
    params: Params, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh | None, rules: Rules
) -> TrainState:
    """`init_state` of parameters that are already sharded over `mesh` by `rules`."""
    if mesh is None:
        return init_state(params, optimizer, seed)
    where = shardings(jax.eval_shape(partial(init_state, optimizer=optimizer, seed=seed), params), mesh, rules)
    rest = init_state({}, optimizer, seed)._replace(opt_state=None)
    opt_state = jax.jit(optimizer.init, out_shardings=where.opt_state)(params)
    rest = jax.tree.map(put_global, rest, where._replace(params={}, opt_state=None))
    return rest._replace(params=params, opt_state=opt_state)


def data_order(state: TrainState, size: int) -> Iterator[int]:
    """Indices of the next examples, from `state.position` on: a fresh permutation of `size` every epoch."""
    _, key = training_keys(state)
    epoch, begin = divmod(int(state.position), size)
    while True:
        yield from np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), size))[begin:].tolist()
        epoch, begin = epoch + 1, 0


def training_keys(state: TrainState) -> Key[jax.Array, "2"]:
    """The key of sampling and the key of the data's order."""
    return jax.random.split(jax.random.fold_in(state.key, TRAINING))


@cache
def make_optimizer(
    learning_rate: float = 1e-6,
    *,
    warmup_updates: int = 0,
    total_updates: int = 0,
    max_norm: float = 1.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW after clipping by global norm, with linear warm-up; gradients that are not finite are skipped.

    With `total_updates` the rate falls to zero by then, along a cosine; without, it stays constant after the warm-up.
    Skipped updates leave parameters and moments untouched; `skipped_updates` counts them. Cached: an equal call returns
    the same object, so that jitted functions find it again.
    """
    # The first update already moves: update i of the warm-up has the rate (i + 1) / warmup_updates.
    ramp = optax.linear_schedule(learning_rate / max(warmup_updates, 1), learning_rate, max(warmup_updates - 1, 1))
    rest = optax.constant_schedule(learning_rate)
    if total_updates:
        rest = optax.cosine_decay_schedule(learning_rate, max(total_updates - warmup_updates, 1))
    schedule = optax.join_schedules([ramp, rest], [warmup_updates]) if warmup_updates else rest
    transform = optax.chain(optax.clip_by_global_norm(max_norm), optax.adamw(schedule, weight_decay=weight_decay))
    return skip_not_finite(transform)


class SkipState(NamedTuple):
    skipped: Int[Array, ""]
    """Updates skipped so far."""
    inner: optax.OptState


def skip_not_finite(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, but parameters and its state stay unchanged where a gradient is not finite.

    `optax.apply_if_finite` branches, and the results of a branch are copies of all parameters and moments. This selects
    element by element, in place.
    """

    def init(params: Params) -> SkipState:
        return SkipState(jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Params, state: Any, params: Params = None) -> tuple[Params, SkipState]:
        finite = jnp.all(jnp.array([jnp.isfinite(grad).all() for grad in jax.tree.leaves(updates)]))
        updates, new = inner.update(updates, state.inner, params)
        updates = jax.tree.map(lambda x: jnp.where(finite, x, 0), updates)
        new = jax.tree.map(lambda x, old: jnp.where(finite, x, old), new, state.inner)
        return updates, SkipState(state.skipped + ~finite, new)

    return optax.GradientTransformation(init, update)


def skipped_updates(state: TrainState) -> Int[Array, ""]:
    """0 for an optimiser without `skip_not_finite`."""
    return getattr(state.opt_state, "skipped", jnp.zeros((), jnp.int32))

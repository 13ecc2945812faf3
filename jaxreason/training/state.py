"""What training carries from step to step, and the optimiser that advances it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from jaxreason.types import Params


class TrainState(NamedTuple):
    params: Params
    opt_state: optax.OptState
    step: Int[Array, ""]
    """Finished steps; each consumes one batch of prompts."""
    position: Int[Array, ""]
    """Prompts consumed so far: where the data goes on after a restart."""
    key: Key[Array, ""]
    """Root of all randomness; step s uses `fold_in(key, s)`."""


def make_optimizer(
    learning_rate: float = 1e-6,
    *,
    warmup_steps: int = 0,
    max_norm: float = 1.0,
    weight_decay: float = 0.0,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    """AdamW after global-norm clipping, linear warm-up, and no update at all where a gradient is not finite.

    Skipped updates leave parameters and moments untouched; `skipped_updates` counts them.
    """
    schedule = optax.linear_schedule(0.0, learning_rate, warmup_steps) if warmup_steps else learning_rate
    if warmup_steps:  # the first update already moves: step s of the warm-up has rate (s + 1) / warmup_steps
        schedule = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, max(warmup_steps - 1, 1))
    transform = optax.chain(
        optax.clip_by_global_norm(max_norm), optax.adamw(schedule, b2=b2, weight_decay=weight_decay)
    )
    return optax.apply_if_finite(transform, max_consecutive_errors=jnp.iinfo(jnp.int32).max)


def skipped_updates(state: TrainState) -> Int[Array, ""]:
    return state.opt_state.total_notfinite


def init_state(params: Params, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    step, position = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # two buffers: each is donated on its own
    return TrainState(params, optimizer.init(params), step, position, jax.random.key(seed))

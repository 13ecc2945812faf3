"""GRPO's update in parts that fit a memory budget, each as long as its own completions.

Token weights are fixed for the whole batch, so the gradients of its parts add up to its own. That leaves the host free
to leave out prompts that move nothing, to put completions of similar length together, and to choose how many prompts
have their activations in memory at once.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxreason.models.config import ModelConfig
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.algorithms import Algorithm
from jaxreason.training.state import TrainState
from jaxreason.training.steps import Batch, Metrics, Statistics, descend, grpo_loss, grpo_metrics
from jaxreason.types import Params, Prompts, Rollouts

SHORTEST = 32
"""Tokens below which parts are not cut any shorter: each length is compiled once."""


def updater(
    *,
    model: Transformer,
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    temperature: float = 1.0,
    memory: float = 1e9,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`grpo_update` with at most about `memory` bytes of activations; donates the state.

    Prompts whose completions all weigh nothing (equal rewards, no KL term) are left out, also of the means over tokens
    among the metrics.
    """
    loss = partial(grpo_loss, model=model, algorithm=algorithm, temperature=temperature)
    gradient = jax.grad(loss, has_aux=True)

    @partial(jax.jit, donate_argnums=1)
    def add(params: Params, sums: tuple[Params, Statistics], part: Batch) -> tuple[Params, Statistics]:
        grads, (more, maxima) = gradient(params, part)
        grads, more = jax.tree.map(jnp.add, (sums[0], sums[1].sums), (grads, more))
        return grads, Statistics(more, jax.tree.map(jnp.maximum, sums[1].maxima, maxima))

    @partial(jax.jit, donate_argnums=0)
    def finish(state: TrainState, sums: tuple[Params, Statistics]) -> tuple[TrainState, Metrics]:
        state, norm = descend(state, sums[0], optimizer)
        return state, grpo_metrics(state, sums[1], norm)

    @jax.jit
    def nothing(params: Params, part: Batch) -> tuple[Params, Statistics]:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, part))

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        sums = None
        for part in cut(batch, model.cfg, model.dtype, memory, whole=bool(algorithm.kl_weight)):
            sums = add(state.params, nothing(state.params, part) if sums is None else sums, part)
        return finish(state, sums)

    return update


def cut(batch: Batch, cfg: ModelConfig, dtype: Any, memory: float, *, whole: bool) -> Iterator[Batch]:
    """Parts of `batch`, shortest completions first; prompts without weight and advantage only if `whole`."""
    batch = jax.tree.map(np.asarray, batch)
    weights, (_, G, T) = batch.weights, batch.weights.shape
    moves = weights.any(axis=(1, 2)) if whole else (weights * batch.advantages[..., None] != 0).any(axis=(1, 2))
    longest = batch.rollouts.lengths.max(axis=1)
    left = [int(p) for p in np.argsort(longest, kind="stable") if moves[p]]
    if not left:  # the optimiser takes its step nevertheless
        left = [int(np.argmin(longest))]
    S = batch.rollouts.prompts.tokens.shape[1]
    while left:
        length = T
        while length > SHORTEST and longest[left[0]] <= length // 2:
            length //= 2
        now = [p for p in left if longest[p] <= length]
        most = max(1, int(memory // activation_bytes(cfg, dtype, G, length, S)))
        size = 1 << min(most, len(moves)).bit_length() - 1
        if len(now) <= size // 2:  # two sizes are compiled for each length
            size = max(1, size // 4)
        left = left[len(now[:size]) :]
        yield _part(batch, np.array(now[:size]), size, length)


def _part(batch: Batch, chosen: np.ndarray, size: int, length: int) -> Batch:
    """The chosen prompts and `length` tokens, filled up to `size` prompts with copies that weigh nothing."""
    real = np.arange(size) < len(chosen)
    chosen = np.pad(chosen, (0, size - len(chosen)), mode="edge")
    (tokens, seen), *completions, truncated = batch.rollouts
    tokens, seen, truncated, advantages = (x[chosen] for x in (tokens, seen, truncated, batch.advantages))
    ids, mask, logps, weights, reference = (
        x[chosen][..., :length] for x in (*completions, batch.weights, batch.reference_logps)
    )
    real = real[:, None, None]
    rollouts = Rollouts(Prompts(tokens, seen), ids, mask & real, logps, truncated)
    return Batch(rollouts, advantages, weights * real, reference)


def activation_bytes(cfg: ModelConfig, dtype: Any, groups: int, length: int, prompt: int) -> float:
    """What the backward pass of one prompt and its completions keeps, about: per token and layer 10 vectors of the
    model's width, 4 of the MLP's, and 2 attention weights a head for every key."""
    layer = 10 * cfg.width + 4 * cfg.mlp_width + 2 * cfg.heads * (length + prompt)
    return float((groups * length + prompt) * cfg.layers * layer * jnp.dtype(dtype).itemsize)

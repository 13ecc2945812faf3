"""GRPO's update in parts that fit a memory budget, each as long as its own completions.

Token weights are fixed for the whole batch, so the gradients of its parts add up to its own. That leaves the host free
to leave out prompts that move nothing, to put completions of similar length together, and to choose how many prompts
have their activations in memory at once.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxreason.models.config import ModelConfig
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.algorithms import Algorithm
from jaxreason.sampling.rollout import bucket
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

    A group that does not fit goes through in equal parts, its prompt with each. Prompts whose completions all weigh
    nothing (equal rewards, no KL term) are left out, also of the means over tokens among the metrics.
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
    """Parts of `batch`, completions of similar length together; prompts that move nothing only if `whole`."""
    batch = jax.tree.map(np.asarray, batch)
    weights, (_, G, T) = batch.weights, batch.weights.shape
    moves = weights.any(axis=(1, 2)) if whole else (weights * batch.advantages[..., None] != 0).any(axis=(1, 2))
    longest, prompt = batch.rollouts.lengths.max(axis=1).tolist(), batch.rollouts.prompts.lengths.tolist()
    if not moves.any():  # the optimiser takes its step nevertheless
        moves[np.argmin(longest)] = True
    room = [_room(length, T) for length in longest]
    order = sorted(np.flatnonzero(moves).tolist(), key=lambda p: (room[p], prompt[p]))
    for length, same in groupby(order, key=room.__getitem__):
        left = list(same)
        while left:
            needed = partial(activation_bytes, cfg, dtype, length=length, prompt=bucket(prompt[left[-1]]))
            together = next((g for g in range(G, 1, -1) if G % g == 0 and needed(groups=g) <= memory), 1)
            most = max(1, int(memory // needed(groups=G)))
            size = 1 << min(most, len(moves)).bit_length() - 1
            if len(left) <= size // 2:  # two sizes are compiled for each length
                size = max(1, size // 4)
            now, left = left[:size], left[size:]
            for first in range(0, G, together):
                members = slice(first, first + together)
                yield _part(batch, np.array(now), size, members, length, bucket(prompt[now[-1]]))


def _room(longest: int, whole: int) -> int:
    """The shortest of whole, whole / 2, whole / 4, ... tokens that holds a completion of `longest`."""
    length = whole
    while length > SHORTEST and longest <= length // 2:
        length //= 2
    return length


def _part(batch: Batch, chosen: np.ndarray, size: int, members: slice, length: int, prompt: int) -> Batch:
    """Members of the groups of the chosen prompts, at most `prompt` tokens of each prompt and `length` of its
    completions, filled up to `size` prompts with copies that weigh nothing."""
    real = np.arange(size) < len(chosen)
    chosen = np.pad(chosen, (0, size - len(chosen)), mode="edge")
    prompts, *completions, truncated = batch.rollouts
    prompts = Prompts(*(x[chosen][:, :prompt] for x in prompts))
    ids, mask, logps, weights, reference = (
        x[chosen][:, members, :length] for x in (*completions, batch.weights, batch.reference_logps)
    )
    real = real[:, None, None]
    rollouts = Rollouts(prompts, ids, mask & real, logps, truncated[chosen][:, members])
    return Batch(rollouts, batch.advantages[chosen][:, members], weights * real, reference)


def activation_bytes(cfg: ModelConfig, dtype: Any, groups: int, length: int, prompt: int) -> float:
    """What the backward pass of one prompt and its completions keeps, about: per token and layer 10 vectors of the
    model's width, 5 of the MLP's, 6 of the queries', and 2 attention weights a head for every key."""
    queries = cfg.heads * cfg.head_width
    layer = 10 * cfg.width + 5 * cfg.mlp_width + 6 * queries + 2 * cfg.heads * (length + prompt)
    return float((groups * length + prompt) * cfg.layers * layer * jnp.dtype(dtype).itemsize)

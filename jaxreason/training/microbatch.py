"""GRPO's update in parts that fit a memory budget, each as long as its own completions.

Token weights are fixed for the whole batch, so the gradients of its parts add up to its own. That leaves the host free
to leave out prompts that move nothing, to put completions of similar length together, and to choose how many prompts
have their activations in memory at once.
"""

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Shaped

from jaxreason.distributed.mesh import num_batch_shards, shard_batch
from jaxreason.models.lora import merge_trees
from jaxreason.models.partition import ADAPTERS, constrain_params, partition_rules
from jaxreason.models.scoring import EncodedPrompts, encode_prompts
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.algorithms import Algorithm
from jaxreason.sampling.rollout import bucket
from jaxreason.training.state import TrainState
from jaxreason.training.updates import Batch, Metrics, Statistics, apply_gradients, grpo_loss, grpo_metrics, loss_after
from jaxreason.types import Params, Prompts, Rollouts

SHORTEST = 32
"""Tokens below which parts are not cut any shorter: each length is compiled once."""


class MicrobatchedUpdate:
    """`Updater(...)(state, batch)` is `grpo_update` with at most about `memory` bytes of activations; it takes over the
    state.

    The completions of a group that does not fit go through in pieces, their prompt once. Prompts whose completions all
    weigh nothing (equal rewards, no KL or entropy term) are left out, also of the means over tokens among the metrics.
    `frozen` as in `grpo_update`. On the model's mesh, `memory` is each device's. `init_grads`, `accumulate` and `apply` are what
    is compiled.
    """

    def __init__(
        self,
        *,
        model: Transformer,
        algorithm: Algorithm,
        optimizer: optax.GradientTransformation,
        temperature: float = 1.0,
        memory: float = 1e9,
        frozen: Params = None,
    ):
        self.model, self.algorithm, self.optimizer = model, algorithm, optimizer
        self.memory, self.frozen = memory, frozen
        self.how = {"model": model, "algorithm": algorithm, "temperature": temperature}
        self.rules = partition_rules(model.cfg) if frozen is None else ADAPTERS
        self.init_grads = jax.jit(self._init_grads)
        self.accumulate = jax.jit(self._accumulate, donate_argnums=1, static_argnames="pieces")
        self.apply = jax.jit(self._apply, donate_argnums=0)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        sums = None
        for part, pieces in plan_microbatches(batch, self.model, self.memory, whole=self.algorithm.has_dense_terms):
            part = shard_batch(part, self.model.mesh)
            sums = self.init_grads(state.params, part, self.frozen) if sums is None else sums
            sums = self.accumulate(state.params, sums, part, self.frozen, pieces=pieces)
        return self.apply(state, sums)

    def _init_grads(self, params: Params, part: Batch, frozen: Params) -> tuple[Params, Statistics]:
        _, statistics = jax.eval_shape(partial(grpo_loss, **self.how), merge_trees(frozen, params), part)
        grads, sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, statistics))
        return self._kept(grads), sums

    def _accumulate(self, params: Params, sums: tuple[Params, Statistics], part: Batch, frozen: Params, *, pieces: int):
        """Adds the part's gradient: one pass over its prompts, forward and backward, for any number of pieces."""

        def prompts_read(params: Params) -> EncodedPrompts:
            return encode_prompts(merge_trees(frozen, params), part.rollouts.prompts, model=self.model)

        def loss(params: Params, read: EncodedPrompts, members: Batch) -> tuple[Float[Array, ""], Statistics]:
            return loss_after(merge_trees(frozen, params), read, members, **self.how)

        read, back = jax.vjp(prompts_read, params)

        def piece(sums: tuple[tuple[Params, EncodedPrompts], Statistics], members: Batch):
            grads, (more, maxima) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, read, members)
            grads, more = jax.tree.map(jnp.add, (sums[0], sums[1].sums), (grads, more))
            return (grads, Statistics(more, jax.tree.map(jnp.maximum, sums[1].maxima, maxima))), None

        start = (sums[0], jax.tree.map(jnp.zeros_like, read)), sums[1]
        ((grads, of_read), statistics), _ = jax.lax.scan(piece, start, split(part, pieces), unroll=pieces == 1)
        return self._kept(jax.tree.map(jnp.add, grads, *back(of_read))), statistics

    def _apply(self, state: TrainState, sums: tuple[Params, Statistics]) -> tuple[TrainState, Metrics]:
        state, norm = apply_gradients(state, sums[0], self.optimizer)
        return self._kept(state), grpo_metrics(state, sums[1], norm)

    def _kept(self, tree: Any) -> Any:
        return constrain_params(tree, self.model.mesh, self.rules)


def plan_microbatches(batch: Batch, model: Transformer, memory: float, *, whole: bool) -> Iterator[tuple[Batch, int]]:
    """Parts of `batch`, completions of similar length together, and into how many pieces each one's groups are to go.

    Prompts that move nothing only if `whole`.
    """
    batch = jax.tree.map(np.asarray, batch)
    (weights, (_, G, T)), over = (batch.weights, batch.weights.shape), num_batch_shards(model.mesh)
    moves = weights.any(axis=(1, 2)) if whole else (weights * batch.advantages != 0).any(axis=(1, 2))
    longest, prompt = batch.rollouts.lengths.max(axis=1).tolist(), batch.rollouts.prompts.lengths.tolist()
    if not moves.any():  # the optimiser takes its step nevertheless
        moves[np.argmin(longest)] = True
    room = [_room(length, T) for length in longest]
    order = sorted(np.flatnonzero(moves).tolist(), key=lambda p: (room[p], prompt[p]))
    for length, same in groupby(order, key=room.__getitem__):
        left = list(same)
        while left:
            longest_prompt = bucket(prompt[left[-1]])
            size, together = microbatch_size_(model, memory, len(moves), G, length, longest_prompt)
            if len(left) <= over * (size // 2):  # two sizes are compiled for each length
                size = max(1, size // 4)
            size *= over
            now, left = left[:size], left[size:]
            yield _part(batch, np.array(now), size, length, bucket(prompt[now[-1]])), G // together


def microbatch_size_(
    model: Transformer, memory: float, prompts: int, group_size: int, length: int, prompt: int
) -> tuple[int, int]:
    """How many prompts a device takes at a time, a power of two, and how many completions of each."""
    needed = partial(activation_bytes, model, length=length, prompt=prompt)
    together = next((g for g in range(group_size, 1, -1) if group_size % g == 0 and needed(group_size=g) <= memory), 1)
    most = max(1, int(memory // needed(group_size=group_size)))
    return 1 << min(most, max(1, prompts // num_batch_shards(model.mesh))).bit_length() - 1, together


def _room(longest: int, whole: int) -> int:
    """The shortest of whole, whole / 2, whole / 4, ... tokens that holds a completion of `longest`."""
    length = whole
    while length > SHORTEST and longest <= length // 2:
        length //= 2
    return length


def split(part: Batch, pieces: int) -> Batch:
    """[P G ...] to [pieces P G/pieces ...]; the prompts are the same for each."""

    def members(x: Shaped[Array, "P G ..."]) -> Shaped[Array, "pieces P H ..."]:
        return jnp.swapaxes(x.reshape(len(x), pieces, -1, *x.shape[2:]), 0, 1)

    prompts = jax.tree.map(lambda x: jnp.broadcast_to(x, (pieces, *x.shape)), part.rollouts.prompts)
    completions = jax.tree.map(members, part._replace(rollouts=part.rollouts[1:]))
    return completions._replace(rollouts=Rollouts(prompts, *completions.rollouts))


def _part(batch: Batch, chosen: np.ndarray, size: int, length: int, prompt: int) -> Batch:
    """The groups of the chosen prompts, at most `prompt` tokens of each prompt and `length` of its completions, filled
    up to `size` prompts with copies that weigh nothing."""
    real = np.arange(size) < len(chosen)
    chosen = np.pad(chosen, (0, size - len(chosen)), mode="edge")
    prompts, *completions, truncated = batch.rollouts
    prompts = Prompts(prompts.tokens[chosen][:, :prompt], prompts.mask[chosen][:, :prompt])
    ids, mask, logps, advantages, weights, reference = (
        x[chosen][..., :length] for x in (*completions, batch.advantages, batch.weights, batch.reference_logps)
    )
    real = real[:, None, None]
    rollouts = Rollouts(prompts, ids, mask & real, logps, truncated[chosen])
    return Batch(rollouts, advantages, weights * real, reference)


def activation_bytes(model: Transformer, group_size: int, length: int, prompt: int) -> float:
    """What the backward pass of one prompt and its completions keeps, about: per token and layer 10 vectors of the
    model's width, 5 of the MLP's, 6 of the queries', and 2 attention weights a head for every key. Rematerialised, each
    layer's input, and all that of one layer."""
    cfg, queries = model.cfg, model.cfg.heads * model.cfg.head_dim
    layer = 10 * cfg.hidden_size + 5 * cfg.intermediate_size + 6 * queries + 2 * cfg.heads * (length + prompt)
    token = cfg.layers * cfg.hidden_size + layer if model.remat else cfg.layers * layer
    return float((group_size * length + prompt) * token * jnp.dtype(model.dtype).itemsize)

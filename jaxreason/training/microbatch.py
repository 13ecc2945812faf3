"""GRPO's update in micro-batches that fit a memory budget, each as long as its own completions.

Token weights are fixed for the whole batch, so the gradients of micro-batches add up to its own. The host is then free
to leave out prompts without a gradient, to put completions of similar length together, and to choose how many prompts
have their activations in memory at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int, Shaped

from jaxreason.distributed.mesh import num_batch_shards, shard_batch
from jaxreason.models.lora import merge_trees
from jaxreason.models.partition import ADAPTERS, constrain_params, partition_rules
from jaxreason.models.scoring import EncodedPrompts, encode_prompts
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.algorithms import Algorithm
from jaxreason.sampling.rollout import bucket
from jaxreason.training.batch import Batch
from jaxreason.training.state import TrainState
from jaxreason.training.updates import (
    GradAccumulator,
    LossStats,
    Metrics,
    apply_gradients,
    count_batch,
    grpo_loss,
    grpo_metrics,
    loss_given_prompts,
    merge_inner_metrics,
)
from jaxreason.types import Array, Params, Prompts, Rollouts

SHORTEST = 32
"""Tokens below which micro-batches are not cut any shorter: each length is compiled once."""


@dataclass(frozen=True)
class PolicyLossSpec:
    """What is compiled into the programs below."""

    model: Transformer
    algorithm: Algorithm
    temperature: float


class MicrobatchedUpdate:
    """`MicrobatchedUpdate(...)(state, batch)` is `grpo_update` with at most about `activation_bytes` of activations on
    each device; it donates the state.

    The completions of a group that does not fit go through in pieces, their prompt once. Prompts whose completions all
    weigh nothing (equal rewards, no KL or entropy term) are left out, also of the means over tokens among the metrics.
    `frozen` as in `grpo_update`. The batch goes to the devices once for all `inner_updates`.
    """

    def __init__(
        self,
        *,
        model: Transformer,
        algorithm: Algorithm,
        optimizer: optax.GradientTransformation,
        temperature: float = 1.0,
        inner_updates: int = 1,
        activation_bytes: float = 1e9,
        frozen: Params = None,
    ):
        self.spec, self.optimizer = PolicyLossSpec(model, algorithm, temperature), optimizer
        self.inner_updates, self.activation_bytes, self.frozen = inner_updates, activation_bytes, frozen

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        model, dense = self.spec.model, self.spec.algorithm.has_dense_terms
        planned = plan_microbatches(batch, model, self.activation_bytes, dense=dense)
        parts = [(shard_batch(part, model.mesh), pieces) for part, pieces in planned]
        each, applied = [], bool(np.any(batch.advantages * batch.weights))
        for turn in range(self.inner_updates):
            total = init_grads(state.params, parts[0][0], self.frozen, spec=self.spec)
            for part, pieces in parts:
                total = accumulate(state.params, total, part, self.frozen, spec=self.spec, pieces=pieces)
            consumed = batch.consumed if turn == self.inner_updates - 1 else None
            state, metrics = apply(
                state,
                total,
                consumed,
                applied,
                spec=self.spec,
                optimizer=self.optimizer,
                adapters=self.frozen is not None,
            )
            each.append(metrics)
        return state, merge_inner_metrics(each)


@partial(jax.jit, static_argnames="spec")
def init_grads(params: Params, part: Batch, frozen: Params, *, spec: PolicyLossSpec) -> GradAccumulator:
    """An empty accumulator, sharded as the parameters."""
    loss = partial(grpo_loss, model=spec.model, algorithm=spec.algorithm, temperature=spec.temperature)
    _, stats = jax.eval_shape(loss, merge_trees(frozen, params), part)
    grads, stats = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, stats))
    return GradAccumulator(_constrain(grads, spec.model, adapters=frozen is not None), stats)


@partial(jax.jit, static_argnames=("spec", "pieces"), donate_argnums=1)
def accumulate(
    params: Params, total: GradAccumulator, part: Batch, frozen: Params, *, spec: PolicyLossSpec, pieces: int
) -> GradAccumulator:
    """Adds the gradient of a micro-batch: one pass over its prompts, forward and backward, for any number of pieces."""

    def encode(params: Params) -> EncodedPrompts:
        return encode_prompts(merge_trees(frozen, params), part.rollouts.prompts, model=spec.model)

    def loss(params: Params, encoded: EncodedPrompts, piece: Batch) -> tuple[Float[Array, ""], LossStats]:
        params = merge_trees(frozen, params)
        return loss_given_prompts(
            params, encoded, piece, model=spec.model, algorithm=spec.algorithm, temperature=spec.temperature
        )

    encoded, encode_backward = jax.vjp(encode, params)

    def add_piece(sofar: GradAccumulator, piece: Batch) -> tuple[GradAccumulator, None]:
        return sofar.add(*jax.grad(loss, argnums=(0, 1), has_aux=True)(params, encoded, piece)), None

    start = GradAccumulator((total.grads, jax.tree.map(jnp.zeros_like, encoded)), total.stats)
    both, _ = jax.lax.scan(add_piece, start, split_groups(part, pieces), unroll=pieces == 1)
    grads, encoded_grads = both.grads
    grads = jax.tree.map(jnp.add, grads, *encode_backward(encoded_grads))
    return GradAccumulator(_constrain(grads, spec.model, adapters=frozen is not None), both.stats)


@partial(jax.jit, static_argnames=("spec", "optimizer", "adapters"), donate_argnums=0)
def apply(
    state: TrainState,
    total: GradAccumulator,
    consumed: Int[Array, "*parts"] | None,
    applied: Bool[Array, ""] | bool,
    *,
    spec: PolicyLossSpec,
    optimizer: optax.GradientTransformation,
    adapters: bool,
) -> tuple[TrainState, Metrics]:
    """The optimiser's step, where it is `applied`; the last one of a batch counts it (`consumed`)."""
    state, norm = apply_gradients(state, total.grads, optimizer, applied)
    state = state if consumed is None else count_batch(state, consumed)
    return _constrain(state, spec.model, adapters=adapters), grpo_metrics(state, total.stats, norm, applied)


def _constrain(tree: Any, model: Transformer, *, adapters: bool) -> Any:
    return constrain_params(tree, model.mesh, ADAPTERS if adapters else partition_rules(model.cfg))


def plan_microbatches(
    batch: Batch, model: Transformer, activation_bytes: float, *, dense: bool
) -> Iterator[tuple[Batch, int]]:
    """Micro-batches, completions of similar length together, and the number of pieces each one's groups are cut into.

    Prompts without a gradient are left out unless the loss has `dense` terms.
    """
    batch = jax.tree.map(np.asarray, batch._replace(consumed=None))
    (weights, (_, G, T)), shards = (batch.weights, batch.weights.shape), num_batch_shards(model.mesh)
    moves = np.any(weights if dense else weights * batch.advantages != 0, axis=(1, 2))
    longest, prompt = batch.rollouts.lengths.max(axis=1).tolist(), batch.rollouts.prompts.lengths.tolist()
    if not moves.any():  # nothing is learned; the metrics are of one group
        moves[np.argmin(longest)] = True
    length = [_round_up(each, T) for each in longest]
    order = sorted(np.flatnonzero(moves).tolist(), key=lambda p: (length[p], prompt[p]))
    for tokens, same in groupby(order, key=length.__getitem__):
        left = list(same)
        while left:
            longest_prompt = bucket(prompt[left[-1]])
            size, together = microbatch_size(model, activation_bytes, len(moves), G, tokens, longest_prompt)
            if len(left) <= shards * (size // 2):  # two sizes are compiled for each length
                size = max(1, size // 4)
            size *= shards
            now, left = left[:size], left[size:]
            yield _select(batch, np.array(now), size, tokens, bucket(prompt[now[-1]])), G // together


def microbatch_size(
    model: Transformer, activation_bytes: float, prompts: int, group_size: int, length: int, prompt: int
) -> tuple[int, int]:
    """How many prompts a device takes at a time, a power of two, and how many completions of each."""
    needed = partial(estimate_activation_bytes, model, length=length, prompt=prompt)
    divisors = (g for g in range(group_size, 1, -1) if group_size % g == 0)
    together = next((g for g in divisors if needed(group_size=g) <= activation_bytes), 1)
    fitting = max(1, int(activation_bytes // needed(group_size=group_size)))
    return 1 << min(fitting, max(1, prompts // num_batch_shards(model.mesh))).bit_length() - 1, together


def _round_up(longest: int, limit: int) -> int:
    """The shortest of limit, limit / 2, limit / 4, ... tokens that holds a completion of `longest`."""
    length = limit
    while length > SHORTEST and longest <= length // 2:
        length //= 2
    return length


def split_groups(part: Batch, pieces: int) -> Batch:
    """[P G ...] to [pieces P G/pieces ...]; the prompts are the same for each."""

    def split(x: Shaped[Array, "P G ..."]) -> Shaped[Array, "pieces P H ..."]:
        return jnp.swapaxes(x.reshape(len(x), pieces, -1, *x.shape[2:]), 0, 1)

    prompts = jax.tree.map(lambda x: jnp.broadcast_to(x, (pieces, *x.shape)), part.rollouts.prompts)
    completions = jax.tree.map(split, part._replace(rollouts=part.rollouts[1:]))
    return completions._replace(rollouts=Rollouts(prompts, *completions.rollouts))


def _select(batch: Batch, chosen: np.ndarray, size: int, length: int, prompt: int) -> Batch:
    """The groups of the chosen prompts, at most `prompt` tokens of each prompt and `length` of its completions, filled
    up to `size` prompts with copies of weight 0."""
    real = np.arange(size) < len(chosen)
    chosen = np.pad(chosen, (0, size - len(chosen)), mode="edge")
    prompts, *completions, truncated = batch.rollouts
    prompts = Prompts(prompts.tokens[chosen][:, :prompt], prompts.mask[chosen][:, :prompt])
    ids, mask, logps, advantages, weights, reference = (
        x[chosen][..., :length] for x in (*completions, batch.advantages, batch.weights, batch.reference_logps)
    )
    real = real[:, None, None]
    rollouts = Rollouts(prompts, ids, mask & real, logps, truncated[chosen])
    return Batch(rollouts, advantages, weights * real, reference, None)


def estimate_activation_bytes(model: Transformer, group_size: int, length: int, prompt: int) -> float:
    """What the backward pass of one prompt and its completions keeps, about: per token and layer 10 vectors of the
    model's width, 5 of the MLP's, 6 of the queries', and 2 attention weights a head for every key. With
    rematerialisation, each layer's input and all that of one layer."""
    cfg, queries = model.cfg, model.cfg.heads * model.cfg.head_dim
    layer = 10 * cfg.hidden_size + 5 * cfg.intermediate_size + 6 * queries + 2 * cfg.heads * (length + prompt)
    token = cfg.layers * cfg.hidden_size + layer if model.remat else cfg.layers * layer
    return float((group_size * length + prompt) * token * jnp.dtype(model.dtype).itemsize)

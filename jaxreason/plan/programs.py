"""The sampler's and the update's programs of one GRPO step, compiled for a slice from shapes alone.

They are the programs of training, those of `Sampler` and `MicrobatchedUpdate`, traced with `ShapeDtypeStruct`s. Large
models are extrapolated from shallow compilations: every further layer adds about the same to every figure.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxreason.distributed.mesh import BATCH_AXES, num_batch_shards, sampling_sharding
from jaxreason.models import ModelConfig, Transformer, fuse, init
from jaxreason.models.lora import Lora, attach_scale, init_lora, merge_trees
from jaxreason.models.partition import ADAPTERS, partition_rules, shardings
from jaxreason.objectives import GRPO
from jaxreason.plan.figures import Figures, measure
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder
from jaxreason.sampling import continuous_batching as batching
from jaxreason.sampling.rollout import bucket
from jaxreason.sampling.slot_table import STEPS, cache_bucket
from jaxreason.training import Batch, init_state, make_optimizer, microbatch
from jaxreason.types import Prompts, Rollouts


@dataclass(frozen=True)
class StepSpec:
    """A GRPO step and the mesh that it runs on."""

    cfg: ModelConfig
    mesh: Mesh
    prompts: int
    group_size: int
    prompt_tokens: int
    max_tokens: int
    dtype: Any = jnp.bfloat16
    remat: bool = True
    activation_bytes: float = 4e9
    """Of an update on one device, as `MicrobatchedUpdate` estimates them."""
    lora_rank: int = 0

    @property
    def model(self) -> Transformer:
        return Transformer(self.cfg, self.dtype, self.remat, self.mesh if self.mesh.size > 1 else None)

    @property
    def microbatch(self) -> tuple[int, int]:
        """(prompts of a microbatch, pieces into which their completions are split)."""
        prompt = bucket(self.prompt_tokens)
        size, together = microbatch.microbatch_size(
            self.model, self.activation_bytes, self.prompts, self.group_size, self.max_tokens, prompt
        )
        return size * num_batch_shards(self.mesh), self.group_size // together

    @property
    def copies_params(self) -> bool:
        """Whether the sampler reads a cast or gathered copy of the parameters."""
        return self.mesh.size > 1 or self.dtype != jnp.float32


class DeviceState:
    """What stays on the devices between programs, as shapes with shardings."""

    def __init__(self, spec: StepSpec):
        cfg, mesh, rules = spec.cfg, spec.mesh, partition_rules(spec.cfg)
        plain = jax.eval_shape(partial(init, cfg=cfg), jax.random.key(0))
        fused = plain if mesh.shape["tensor"] > 1 else jax.eval_shape(fuse, plain)
        trained, self.frozen, self.optimizer = fused, None, make_optimizer(1e-6)
        if spec.lora_rank:
            lora = partial(init_lora, rank=spec.lora_rank, alpha=1.0)
            trained = jax.eval_shape(lambda plain: lora(jax.random.key(0), plain).adapters, plain)
            frozen = jax.eval_shape(lambda fused, trained: attach_scale(fused, Lora(trained, 1.0)), fused, trained)
            self.frozen = _sharded(frozen, shardings(frozen, mesh, rules))
            rules = ADAPTERS
        state = jax.eval_shape(partial(init_state, optimizer=self.optimizer, seed=0), trained)
        self.state = _sharded(state, shardings(state, mesh, rules))

        def sampling_copy(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return _shape(x.shape, spec.dtype if x.ndim > 1 else x.dtype, sampling_sharding(x, mesh))

        params = merge_trees(self.frozen, self.state.params) if spec.lora_rank else self.state.params
        self.sampled = jax.tree.map(sampling_copy, params) if spec.copies_params else params


def programs(spec: StepSpec, whole: bool = False) -> dict[str, Figures]:
    """Figures of each program by name. Above 9 layers they are extrapolated from shallow models, unless `whole`."""
    cfg = spec.cfg
    if whole or cfg.layers <= 9:
        return compiled(spec, *spec.microbatch)
    shallow = partial(_compile_shallow, spec)
    if not any(cfg.sliding):
        four, eight = (shallow(layers=n) for n in (4, 8))
        return {name: _extrapolate_layers(four[name], (eight[name], 4, cfg.layers - 4)) for name in four}
    sliding = sum(cfg.sliding)
    patterns = ((True,) * local + (False,) * full for local, full in ((2, 1), (6, 1), (2, 3)))
    base, local, full = (shallow(layers=len(pattern), sliding=pattern) for pattern in patterns)
    extra = sliding - 2, cfg.layers - sliding - 1
    return {
        name: _extrapolate_layers(base[name], (local[name], 4, extra[0]), (full[name], 2, extra[1])) for name in base
    }


def _extrapolate_layers(base: Figures, *points: tuple[Figures, int, int]) -> Figures:
    """`base` plus, for each kind of layer, its slope times the layers to add.

    `points`: (figures with more layers than `base`, how many more, layers to add).
    """

    def line(y: float, *others: float) -> float:
        return y + sum((other - y) / step * count for other, (_, step, count) in zip(others, points, strict=True))

    return jax.tree.map(line, base, *(point[0] for point in points))


def _compile_shallow(spec: StepSpec, **changes: Any) -> dict[str, Figures]:
    """With fewer layers, but the microbatch of the whole model."""
    return compiled(replace(spec, cfg=replace(spec.cfg, **changes)), *spec.microbatch)


def compiled(spec: StepSpec, size: int, pieces: int) -> dict[str, Figures]:
    """All layers; an update takes microbatches of `size` prompts, their completions in `pieces`."""
    device, figures = DeviceState(spec), {}
    sharded = partial(_shape, sharding=NamedSharding(spec.mesh, PartitionSpec(BATCH_AXES)))
    replicated = partial(_shape, sharding=NamedSharding(spec.mesh, PartitionSpec()))

    decoder, mesh = TransformerDecoder(spec.model), spec.model.mesh
    sampler = Sampler(decoder, Sampling(), max_tokens=spec.max_tokens, stop_ids=(0,), mesh=mesh, dtype=spec.dtype)
    largest = cache_bucket(spec.max_tokens - 1)
    keys = sharded((spec.prompts, spec.group_size), jax.random.key(0).dtype)
    prompts, row_limits = _prompts(spec.prompts, spec.prompt_tokens, sharded), sharded((spec.prompts,), jnp.int32)
    smaller, steps = max(largest // 2, 1), min(STEPS, max(1, spec.max_tokens - 1))
    figures["prompts"], (live, _) = measure(
        batching.prefill, device.sampled, prompts, keys, row_limits, sampler=sampler, cache_size=smaller
    )
    figures["larger cache"], live = measure(batching.resize, live, jnp.int32(0), mesh=mesh, cache_size=largest)
    figures["a token"], _ = measure(batching.decode, device.sampled, live, jnp.int32(1), sampler=sampler, steps=steps)

    loss = microbatch.PolicyLossSpec(spec.model, GRPO, temperature=1.0)
    part, params, frozen = _part(size, spec, sharded), device.state.params, device.frozen
    total = jax.eval_shape(partial(microbatch.init_grads, spec=loss), params, part, frozen)
    stats = jax.tree.map(lambda x: replicated(x.shape, x.dtype), total.stats)
    total = total._replace(grads=params, stats=stats)
    figures["gradient"], total = measure(microbatch.accumulate, params, total, part, frozen, spec=loss, pieces=pieces)
    adapters, consumed, state = frozen is not None, replicated((), jnp.int32), device.state
    figures["optimiser"], _ = measure(
        microbatch.apply, state, total, consumed, True, spec=loss, optimizer=device.optimizer, adapters=adapters
    )
    return figures


def _part(size: int, spec: StepSpec, sharded: Callable[..., Any]) -> Batch:
    rows = size, spec.group_size, spec.max_tokens
    ids, mask, reals = (sharded(rows, dtype) for dtype in (jnp.int32, jnp.bool, jnp.float32))
    rollouts = Rollouts(_prompts(size, spec.prompt_tokens, sharded), ids, mask, reals, sharded(rows[:2], jnp.bool))
    return Batch(rollouts, sharded((*rows[:2], 1), jnp.float32), reals, reals, None)


def _prompts(count: int, tokens: int, sharded: Callable[..., Any]) -> Prompts:
    shape = count, bucket(tokens)
    return Prompts(sharded(shape, jnp.int32), sharded(shape, jnp.bool))


def _shape(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _sharded(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, sharding: _shape(x.shape, x.dtype, sharding), tree, shardings)


def bytes_per_device(tree: Any) -> float:
    """Of a tree of shapes with shardings; scalars are not counted."""
    leaves = (x for x in jax.tree.leaves(tree) if x.shape)
    return float(sum(x.dtype.itemsize * prod(x.sharding.shard_shape(x.shape)) for x in leaves))

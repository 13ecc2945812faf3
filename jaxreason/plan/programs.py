"""The programs of one GRPO step, compiled for a slice without a single array: the sampler's and the update's.

They are those that training runs, `Sampler` and `MicrobatchedUpdate` themselves, given shapes in the place of arrays. A deep model
is compiled with a few layers, two or three times: every further layer adds about the same to every figure.
"""

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
from jaxreason.sampling.continuous_batching import cache_bucket
from jaxreason.sampling.rollout import bucket
from jaxreason.training import Batch, MicrobatchedUpdate, init_state, make_optimizer
from jaxreason.training.microbatch import microbatch_size_
from jaxreason.types import Prompts, Rollouts


@dataclass(frozen=True)
class StepSpec:
    """What a step does, and on what."""

    cfg: ModelConfig
    mesh: Mesh
    prompts: int
    group_size: int
    prompt_tokens: int
    max_tokens: int
    dtype: Any = jnp.bfloat16
    remat: bool = True
    memory: float = 4e9
    """For activations of an update, as `MicrobatchedUpdate` counts them."""
    lora_rank: int = 0

    @property
    def model(self) -> Transformer:
        return Transformer(self.cfg, self.dtype, self.remat, self.mesh if self.mesh.size > 1 else None)

    @property
    def part(self) -> tuple[int, int]:
        """Prompts of one part of the update, and into how many pieces their groups go."""
        prompt = bucket(self.prompt_tokens)
        size, together = microbatch_size_(
            self.model, self.memory, self.prompts, self.group_size, self.max_tokens, prompt
        )
        return size * num_batch_shards(self.mesh), self.group_size // together

    @property
    def copies(self) -> bool:
        """Whether the sampler reads parameters of its own."""
        return self.mesh.size > 1 or self.dtype != jnp.float32


class DeviceState:
    """What lies on the devices between programs, as shapes."""

    def __init__(self, work: StepSpec):
        cfg, mesh, rules = work.cfg, work.mesh, partition_rules(work.cfg)
        plain = jax.eval_shape(partial(init, cfg=cfg), jax.random.key(0))
        joined = plain if mesh.shape["tensor"] > 1 else jax.eval_shape(fuse, plain)
        trained, self.frozen, self.optimizer = joined, None, make_optimizer(1e-6)
        if work.lora_rank:
            adapted = partial(init_lora, rank=work.lora_rank, alpha=1.0)
            trained = jax.eval_shape(lambda plain: adapted(jax.random.key(0), plain).adapters, plain)
            frozen = jax.eval_shape(lambda joined, trained: attach_scale(joined, Lora(trained, 1.0)), joined, trained)
            self.frozen = _on(frozen, shardings(frozen, mesh, rules))
            rules = ADAPTERS
        state = jax.eval_shape(partial(init_state, optimizer=self.optimizer, seed=0), trained)
        self.state = _on(state, shardings(state, mesh, rules))

        def read(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return _shape(x.shape, work.dtype if x.ndim > 1 else x.dtype, sampling_sharding(x, mesh))

        params = merge_trees(self.frozen, self.state.params) if work.lora_rank else self.state.params
        self.sampled = jax.tree.map(read, params) if work.copies else params


def programs(work: StepSpec, whole: bool = False) -> dict[str, Figures]:
    """Figures of each program by name; those of a deep model from shallow ones, unless `whole`."""
    cfg = work.cfg
    if whole or cfg.layers <= 9:
        return compiled(work, *work.part)
    shallow = partial(_shallow, work)
    if not any(cfg.sliding):
        four, eight = (shallow(layers=n) for n in (4, 8))
        return {name: _line(four[name], (eight[name], 4, cfg.layers - 4)) for name in four}
    sliding = sum(cfg.sliding)
    depths = ((True,) * narrow + (False,) * wide for narrow, wide in ((2, 1), (6, 1), (2, 3)))
    few, more, wider = (shallow(layers=len(each), sliding=each) for each in depths)
    extra = sliding - 2, cfg.layers - sliding - 1
    return {name: _line(few[name], (more[name], 4, extra[0]), (wider[name], 2, extra[1])) for name in few}


def _line(base: Figures, *points: tuple[Figures, int, int]) -> Figures:
    """`base`, and for each (figures with so many layers more, how many, how many there are) their share."""

    def beyond(y: float, *others: float) -> float:
        return y + sum((other - y) / step * count for other, (_, step, count) in zip(others, points, strict=True))

    return jax.tree.map(beyond, base, *(point[0] for point in points))


def _shallow(work: StepSpec, **changes: Any) -> dict[str, Figures]:
    """Of fewer layers, but of the parts of an update that all of them allow."""
    return compiled(replace(work, cfg=replace(work.cfg, **changes)), *work.part)


def compiled(work: StepSpec, size: int, pieces: int) -> dict[str, Figures]:
    """Of a model as deep as it is; an update takes `size` prompts at a time, their completions in `pieces`."""
    held, found = DeviceState(work), {}
    over, rows = (
        partial(_shape, sharding=NamedSharding(work.mesh, PartitionSpec(BATCH_AXES))),
        (work.prompts, work.group_size),
    )
    sampler = Sampler(
        TransformerDecoder(work.model),
        Sampling(),
        max_tokens=work.max_tokens,
        stop_ids=(0,),
        mesh=work.model.mesh,
        dtype=work.dtype,
    )
    largest = cache_bucket(work.max_tokens - 1)
    keys, most = over(rows, jax.random.key(0).dtype), over(rows[:1], jnp.int32)
    given = held.sampled, _prompts(work.prompts, work.prompt_tokens, over), keys, most
    found["prompts"], (live, _) = measure(sampler.prefill_and_sample, *given, slots=max(largest // 2, 1))
    found["larger cache"], live = measure(sampler.resize_cache, live, jnp.int32(0), slots=largest)
    found["a token"], _ = measure(sampler.decode_chunk, held.sampled, live=live, most=jnp.int32(1))

    update = MicrobatchedUpdate(
        model=work.model, algorithm=GRPO, optimizer=held.optimizer, memory=work.memory, frozen=held.frozen
    )
    part, params = _part(size, work, over), held.state.params
    _, statistics = jax.eval_shape(update.init_grads, params, part, held.frozen)
    everywhere = NamedSharding(work.mesh, PartitionSpec())
    sums = params, jax.tree.map(lambda x: _shape(x.shape, x.dtype, everywhere), statistics)
    found["gradient"], sums = measure(update.accumulate, params, sums, part, held.frozen, pieces=pieces)
    found["optimiser"], _ = measure(update.apply, held.state, sums)
    return found


def _part(size: int, work: StepSpec, over: Any) -> Batch:
    rows = size, work.group_size, work.max_tokens
    ids, mask, reals = (over(rows, dtype) for dtype in (jnp.int32, jnp.bool, jnp.float32))
    rollouts = Rollouts(_prompts(size, work.prompt_tokens, over), ids, mask, reals, over(rows[:2], jnp.bool))
    return Batch(rollouts, over((*rows[:2], 1), jnp.float32), reals, reals)


def _prompts(count: int, tokens: int, over: Any) -> Prompts:
    shape = count, bucket(tokens)
    return Prompts(over(shape, jnp.int32), over(shape, jnp.bool))


def _shape(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _on(tree: Any, places: Any) -> Any:
    return jax.tree.map(lambda x, place: _shape(x.shape, x.dtype, place), tree, places)


def per_device(tree: Any) -> float:
    """Bytes on each device of a tree of shapes."""
    leaves = (x for x in jax.tree.leaves(tree) if x.shape)
    return float(sum(x.dtype.itemsize * prod(x.sharding.shard_shape(x.shape)) for x in leaves))

"""Devices as a mesh, and how arrays are sharded over it.

Three axes: `data` replicates the parameters; `fsdp` shards them and gathers each where it is used; `tensor` shards
heads, the MLP's width and the vocabulary, and computes with the shards. The batch (prompts with their completions) is
sharded over `data` and `fsdp`. `mesh=None`: a single device, no sharding constraints.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxreason.errors import InputError
from jaxreason.types import Array

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
"""The axes that shard the batch."""
Devices = Sequence[Any]
"""Of `jax.Device`, which type checkers take for a variable."""


def mesh_from_flag(text: str) -> Mesh | None:
    """The mesh of a flag such as `2,2,2`. Empty: all devices along `fsdp`, or None if there is only one."""
    if not text:
        return make_mesh((1, jax.device_count(), 1)) if jax.device_count() > 1 else None
    return parse_mesh(text)


def parse_mesh(text: str, devices: Devices | None = None) -> Mesh:
    """The mesh of all devices (or of `devices`) with the sizes in `text`: data,fsdp,tensor."""
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError as error:
        raise InputError(f"--mesh {text!r} is not three numbers: give data,fsdp,tensor, as 1,8,1") from error
    return make_mesh(sizes, devices)


def make_mesh(sizes: Sequence[int], devices: Devices | None = None) -> Mesh:
    """A mesh of all devices (or of `devices`). `sizes`, one for each of `MESH_AXES`, multiply to their number."""
    devices = jax.devices() if devices is None else devices
    if len(sizes) != len(MESH_AXES) or min(sizes) < 1 or prod(sizes) != len(devices):
        given, nearest = (",".join(map(str, each)) for each in (sizes, nearest_sizes(sizes, len(devices))))
        raise InputError(f"mesh {given} does not fill {len(devices)} devices: give {nearest} (data, fsdp, tensor)")
    try:
        return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)
    except NotImplementedError as error:  # jax finds no such split of the slice's torus
        text = ",".join(map(str, sizes))
        raise InputError(f"mesh {text} splits no torus of {len(devices)} chips: give 1,{len(devices)},1") from error


def nearest_sizes(
    sizes: Sequence[int], count: int, valid: Callable[[tuple[int, ...]], bool] = lambda each: True
) -> tuple[int, ...]:
    """The valid axis sizes for `count` devices that are nearest to `sizes` (in logarithms); () if there are none."""
    target = np.log(np.maximum([*sizes, 1, 1, 1][: len(MESH_AXES)], 1))
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    candidates = [each for each in product(divisors, repeat=len(MESH_AXES)) if prod(each) == count and valid(each)]
    return min(candidates, key=lambda each: float(np.abs(np.log(each) - target).sum()), default=())


def num_batch_shards(mesh: Mesh | None) -> int:
    """Number of shards of a batch; the number of its prompts must be a multiple of it."""
    return 1 if mesh is None else prod(mesh.shape[axis] for axis in BATCH_AXES)


def constrain(x: Array, mesh: Mesh | None, *axes: str | Sequence[str] | None) -> Array:
    """Within a jitted function: shards axis i of `x` over mesh axes `axes[i]`; None and the rest are not sharded."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))


def shard_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Host arrays [P ...] as arrays sharded over `BATCH_AXES`. Each host transfers only its own devices' shards."""
    return jax.tree.map(lambda x: put_global(x, NamedSharding(mesh, PartitionSpec(BATCH_AXES))), tree) if mesh else tree


def put_global(x: Any, sharding: NamedSharding) -> jax.Array:
    """A global array from one that every host holds in full (`jax.make_array_from_callback`)."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put_global(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    if isinstance(x, jax.Array) and x.sharding.device_set == sharding.device_set:
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def sampling_params(params: Any, mesh: Mesh | None, dtype: Any) -> Any:
    """Parameters for sampling, which reads all of them for every token: matrices in `dtype`, no `fsdp` sharding."""
    leaves, tree = jax.tree.flatten(params)
    if mesh is None:
        return params if dtype == jnp.float32 else tree.unflatten(_cast_matrices(leaves, dtype, None))
    return tree.unflatten(_cast_matrices(leaves, dtype, tuple(sampling_sharding(x, mesh) for x in leaves)))


def sampling_sharding(x: Any, mesh: Mesh) -> NamedSharding:
    """The sharding of parameter `x` without `fsdp`; replicated if it is not on a mesh yet."""
    spec = x.sharding.spec if isinstance(x.sharding, NamedSharding) else ()
    return NamedSharding(mesh, PartitionSpec(*(None if axis == "fsdp" else axis for axis in spec)))


@partial(jax.jit, static_argnums=(1, 2))
def _cast_matrices(leaves: list[jax.Array], dtype: Any, shardings: tuple[NamedSharding, ...] | None) -> list[jax.Array]:
    cast = [x.astype(dtype) if x.ndim > 1 else x for x in leaves]
    return cast if shardings is None else jax.lax.with_sharding_constraint(cast, list(shardings))


def jit_batch_sharded(function: Callable[..., Any], mesh: Mesh | None, **static: Any) -> Callable[..., Any]:
    """The jitted `function(params, *batch, **static)`: the same object for equal arguments, so that it compiles once.

    On a mesh the batch, host arrays [P ...], is sharded over `BATCH_AXES`, and the results are host arrays.
    """
    return _jit_batch_sharded(function, mesh, **static)


@lru_cache
def _jit_batch_sharded(function: Callable[..., Any], mesh: Mesh | None, **static: Any) -> Callable[..., Any]:
    jitted = jax.jit(partial(function, **static))
    return jitted if mesh is None else lambda params, *batch: gather_to_host(jitted(params, *shard_batch(batch, mesh)))


def gather_to_host(tree: Any) -> Any:
    """Arrays of any sharding as full host arrays on every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)

"""Devices as a mesh, and what lies where on it.

Three axes: `data` repeats the parameters, `fsdp` cuts them up and gathers each where it is used, `tensor` computes with
pieces of them. Prompts, with everything of their completions, lie over the first two; `tensor` cuts heads, the MLP's
width and the vocabulary. None in the place of a mesh means one device, and that nothing is said to the compiler.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxreason.errors import InputError

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
"""What prompts lie over."""


def mesh_from_flag(text: str) -> Mesh | None:
    """The mesh of a flag such as `2,2,2`; empty, all devices over `fsdp`, or None where there is one."""
    if not text:
        return make_mesh((1, jax.device_count(), 1)) if jax.device_count() > 1 else None
    return parse_mesh(text)


def parse_mesh(text: str, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices (or of these) that a flag asks for."""
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError as error:
        raise InputError(f"--mesh {text!r} is not three numbers: give data,fsdp,tensor, as 1,8,1") from error
    return make_mesh(sizes, devices)


def make_mesh(sizes: Sequence[int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices (or of these): `sizes` of the axes `MESH_AXES`, whose product is their number."""
    devices = jax.devices() if devices is None else devices
    if len(sizes) != len(MESH_AXES) or min(sizes) < 1 or prod(sizes) != len(devices):
        asked, nearest = (",".join(map(str, each)) for each in (sizes, nearest_sizes(sizes, len(devices))))
        raise InputError(f"mesh {asked} does not fill {len(devices)} devices: give {nearest} (data, fsdp, tensor)")
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)


def nearest_sizes(
    sizes: Sequence[int], count: int, works: Callable[[tuple[int, ...]], bool] = lambda each: True
) -> tuple[int, ...]:
    """Sizes of three axes that hold `count` devices and work, as near to those asked as there are; () if none do."""
    asked = np.log(np.maximum([*sizes, 1, 1, 1][: len(MESH_AXES)], 1))
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    fitting = [each for each in product(divisors, repeat=len(MESH_AXES)) if prod(each) == count and works(each)]
    return min(fitting, key=lambda each: float(np.abs(np.log(each) - asked).sum()), default=())


def num_batch_shards(mesh: Mesh | None) -> int:
    """Into how many parts a batch of prompts is cut: their number must be a multiple of it."""
    return 1 if mesh is None else prod(mesh.shape[axis] for axis in BATCH_AXES)


def constrain(x: jax.Array, mesh: Mesh | None, *axes: str | Sequence[str] | None) -> jax.Array:
    """Tells the compiler over which mesh axes each axis of `x` lies; those not named, and what follows, lie whole."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))


def shard_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Host arrays [P ...] as arrays on the mesh; a host brings to its devices what these hold, and nothing else."""
    return jax.tree.map(lambda x: put_global(x, NamedSharding(mesh, PartitionSpec(BATCH_AXES))), tree) if mesh else tree


def put_global(x: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every host has, laid out on devices of all hosts."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put_global(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    if isinstance(x, jax.Array) and x.sharding.device_set == sharding.device_set:
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def sampling_params(params: Any, mesh: Mesh | None, dtype: Any) -> Any:
    """Parameters as a sampler reads them, once for every token: matrices in the type that they are multiplied in, and
    no longer cut over `fsdp`."""

    leaves, tree = jax.tree.flatten(params)
    if mesh is None:
        return params if dtype == jnp.float32 else tree.unflatten(_read_as(leaves, dtype, None))
    return tree.unflatten(_read_as(leaves, dtype, tuple(sampling_sharding(x, mesh) for x in leaves)))


def sampling_sharding(x: Any, mesh: Mesh) -> NamedSharding:
    """Where a parameter that lies on the mesh, or anywhere else, lies for a sampler: no longer cut over `fsdp`."""
    spec = x.sharding.spec if isinstance(x.sharding, NamedSharding) else ()
    return NamedSharding(mesh, PartitionSpec(*(None if axis == "fsdp" else axis for axis in spec)))


@partial(jax.jit, static_argnums=(1, 2))
def _read_as(leaves: list[jax.Array], dtype: Any, places: tuple[NamedSharding, ...] | None) -> list[jax.Array]:
    cast = [x.astype(dtype) if x.ndim > 1 else x for x in leaves]
    return cast if places is None else jax.lax.with_sharding_constraint(cast, list(places))


def jit_batch_sharded(function: Callable[..., Any], mesh: Mesh | None, **static: Any) -> Callable[..., Any]:
    """`function(params, *batch, **static)`, jitted, with a batch of host arrays [P ...] sharded over the mesh; on a mesh
    it returns host arrays. An equal call compiles nothing again."""
    jitted = _jit(function, tuple(static))

    def call(params: Any, *batch: Any) -> Any:
        result = jitted(params, *shard_batch(batch, mesh), **static)
        return result if mesh is None else gather_to_host(result)

    return call


@cache
def _jit(function: Callable[..., Any], static_names: tuple[str, ...]) -> Callable[..., Any]:
    return jax.jit(function, static_argnames=static_names)


def gather_to_host(tree: Any) -> Any:
    """Arrays of whatever layout as host arrays, whole on every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)

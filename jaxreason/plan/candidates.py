"""Settings to try where a step does not fit, in order, and the first of them that does."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import NamedTuple

import jax.numpy as jnp

from jaxreason.distributed.mesh import Devices, make_mesh, num_batch_shards
from jaxreason.errors import InputError
from jaxreason.models.partition import indivisible_dim
from jaxreason.plan.figures import DoesNotFit
from jaxreason.plan.programs import StepSpec
from jaxreason.plan.report import Plan, mesh_sizes, plan, resident_memory
from jaxreason.plan.slices import Slice, find_slice, larger_slices
from jaxreason.sampling.slot_table import cache_bucket

MAX_RESIDENT_FRACTION = 0.85
"""Of a device's memory, for parameters, moments, gradients and caches: a mesh that needs more is not preferred."""
MAX_COMPILED = 4
"""Candidates that are compiled, the requested one included: each takes minutes."""


class Candidate(NamedTuple):
    spec: StepSpec
    topology: Slice
    reason: str = "as requested"


def same_slice(spec: StepSpec, topology: Slice) -> list[Candidate]:
    """The whole step on the same slice: as requested, in smaller microbatches, then on a larger tensor axis."""
    smaller = {n: replace(spec, remat=True, activation_bytes=spec.activation_bytes / n) for n in (4, 16, 64)}
    wider = [each for each in meshes(smaller[64], topology.devices) if _tensor(each) > _tensor(spec)]
    return [
        Candidate(spec, topology),
        *(Candidate(each, topology, f"activations in 1/{n} of the memory") for n, each in smaller.items()),
        *(Candidate(each, topology, f"also tensor = {_tensor(each)}") for each in wider),
    ]


def smaller_specs(spec: StepSpec, topology: Slice) -> list[Candidate]:
    """Everything to try instead of `spec`, the smallest change first: the same slice, fewer prompts, larger slices."""
    _, *candidates = same_slice(spec, topology)
    smallest, fewer = replace(spec, remat=True, activation_bytes=spec.activation_bytes / 64), spec.prompts
    while fewer % (2 * num_batch_shards(spec.mesh)) == 0:
        fewer //= 2
        candidates.append(Candidate(replace(spec, prompts=fewer), topology, f"{fewer} prompts"))
        reason = f"{fewer} prompts, activations in 1/64 of the memory"
        candidates.append(Candidate(replace(smallest, prompts=fewer), topology, reason))
    for larger in map(find_slice, larger_slices(topology.name) if topology.chip else ()):
        candidates += [Candidate(each, larger, "a larger slice") for each in meshes(spec, larger.devices)]
    return candidates


def first_that_fits(
    candidates: Iterable[Candidate], *, reference: bool, whole: bool = False, measured: Plan | None = None
) -> Plan | None:
    """Estimates the memory of each candidate, compiles those whose estimate fits, and returns the first that does fit.

    Estimates are extrapolated from `measured`, a plan already compiled, or else from the first one compiled here.
    """
    compiled = int(measured is not None)
    for spec, topology, reason in candidates:
        if compiled == MAX_COMPILED:
            break
        estimate = extrapolate_memory(measured, spec) if measured else memory_lower_bound(spec, reference)
        if estimate >= topology.memory:
            continue
        compiled += 1
        with suppress(DoesNotFit):
            result = plan(spec, topology, reason, reference=reference, whole=whole)
            if result.fits:
                return result
            measured = measured or result
        if measured is None:  # not even a few layers of the first one fit
            break
    return None


def memory_lower_bound(spec: StepSpec, reference: bool) -> float:
    """Bytes of a device for parameters, moments, gradients and caches, without compiling."""
    cfg = spec.cfg
    tokens = spec.prompts * (spec.prompt_tokens + spec.group_size * cache_bucket(spec.max_tokens - 1)) / spec.mesh.size
    caches = 2 * cfg.layers * cfg.kv_heads * cfg.head_dim * jnp.dtype(spec.dtype).itemsize * tokens
    sampling, updating = map(sum, zip(*resident_memory(spec, reference).values(), strict=True))
    return max(sampling + caches, updating)


def extrapolate_memory(measured: Plan, spec: StepSpec) -> float:
    """Estimated bytes of a device: caches and working space scale with the tokens that a device holds at a time."""

    def prompts_at_a_time(spec: StepSpec) -> tuple[float, float]:
        size, pieces = spec.microbatch
        return spec.prompts / spec.mesh.size, size / pieces / spec.mesh.size

    sampling, updating = map(sum, zip(*resident_memory(spec, measured.reference).values(), strict=True))
    before, after = prompts_at_a_time(measured.spec), prompts_at_a_time(spec)
    rest = [sum(measured.memory[kind][i] for kind in ("keys and values", "working space")) for i in (0, 1)]
    return max(sampling + rest[0] * (after[0] / before[0]), updating + rest[1] * (after[1] / before[1]))


def meshes(spec: StepSpec, devices: Devices) -> Iterator[StepSpec]:
    """The same step on each mesh that divides it, the smallest tensor axis first."""
    for tensor in range(1, len(devices) + 1):
        sizes = (1, len(devices) // tensor, tensor)
        if len(devices) % tensor == 0 and not indivisible_dim(spec.cfg, sizes) and spec.prompts % sizes[1] == 0:
            with suppress(InputError):  # no such split of the slice's torus
                yield replace(spec, mesh=make_mesh(sizes, devices))


def best_mesh(spec: StepSpec, topology: Slice, reference: bool) -> StepSpec | None:
    """On the smallest tensor axis that leaves room beside the lower bound, else on the mesh with the least bound; None
    if no mesh divides the step."""
    best, least = None, inf
    for candidate in meshes(spec, topology.devices):
        needed = memory_lower_bound(candidate, reference)
        if needed < MAX_RESIDENT_FRACTION * topology.memory:
            return candidate
        if needed < least:
            best, least = candidate, needed
    return best


def changed_flags(new: Plan, old: Plan) -> str:
    """The flags that turn the settings of `old` into those of `new`."""
    changed = {
        "topology": (new.topology.name, old.topology.name),
        "mesh": (mesh_sizes(new.spec), mesh_sizes(old.spec)),
        "prompts-per-step": (new.spec.prompts, old.spec.prompts),
        "activation-gb": (new.spec.activation_bytes / 1e9, old.spec.activation_bytes / 1e9),
    }
    text = " ".join(f"--{name} {after}" for name, (after, before) in changed.items() if after != before)
    return text + " --remat" * (new.spec.remat and not old.spec.remat)


def _tensor(spec: StepSpec) -> int:
    return spec.mesh.shape["tensor"]

"""A plan: what a step needs on each device and how long it takes at least, whether it fits, and what would."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, inf, prod

import jax
import jax.numpy as jnp

from jaxreason.mesh import AXES, make_mesh
from jaxreason.models.cost import reading_flops, training_flops, writing_flops
from jaxreason.models.transformer import param_shapes
from jaxreason.plan.figures import Figures
from jaxreason.plan.programs import Held, Work, per_device, programs
from jaxreason.plan.slices import Slice, find_slice, larger
from jaxreason.training.sharding import uncut

ROOM = 0.85
"""Of a chip's memory that parameters, moments, gradients and caches may take, so that a mesh is worth compiling for."""
SMALLEST_MEMORY = 0.25e9
"""Activations below which an update is not cut any further."""


@dataclass(frozen=True)
class Plan:
    work: Work
    on: Slice
    memory: dict[str, tuple[float, float]]
    """Bytes of a device, by kind, while sampling and while updating."""
    programs: dict[str, Figures]

    @property
    def peak(self) -> float:
        return max(map(sum, zip(*self.memory.values(), strict=True)))

    @property
    def fits(self) -> bool:
        return self.peak <= self.on.memory

    @property
    def calls(self) -> dict[str, int]:
        """How often a step runs each program, if every completion goes on to the end."""
        parts = ceil(self.work.prompts / self.work.part[0])
        return {"prompts": 1, "a token": self.work.max_tokens - 1, "gradient": parts, "optimiser": 1}

    def seconds(self, name: str) -> dict[str, float]:
        """Of one call of a program, at least, by what bounds it."""
        figures, chip = self.programs[name], self.on.chip
        if chip is None:
            return {}
        arithmetic, traffic = figures.flops / chip.flops, figures.traffic / chip.bandwidth
        return {"arithmetic": arithmetic, "memory": traffic, "links": sum(figures.sent.values()) / chip.links}

    @property
    def times(self) -> tuple[float, float]:
        """Seconds of a step, at least: sampling and updating."""
        each = {name: calls * max(self.seconds(name).values()) for name, calls in self.calls.items()}
        return each["prompts"] + each["a token"], each["gradient"] + each["optimiser"]

    @property
    def model_flops(self) -> float:
        """Arithmetic of the model in a step, none of it done twice."""
        work = self.work
        read, written = work.prompt_tokens, work.max_tokens
        sampling = reading_flops(work.cfg, read) + work.groups * writing_flops(work.cfg, read, written)
        of_prompt = 3 * reading_flops(work.cfg, read)
        of_completions = work.groups * training_flops(work.cfg, written, read + written / 2)
        return work.prompts * (sampling + of_prompt + of_completions)


def plan(work: Work, on: Slice, *, reference: bool = False, whole: bool = False) -> Plan:
    """Asks the compiler. `reference`: another copy of the initial parameters is kept, for a KL."""
    held, found = Held(work), programs(work, whole)
    params, moments, copy = map(per_device, (held.state.params, held.state.opt_state, held.sampled))
    frozen = per_device(held.frozen) if work.lora_rank else 0.0
    kept = params if reference and not work.lora_rank else 0.0
    copy *= work.copies
    caches = found["a token"].arguments - (copy or params)
    beside = kept + frozen + moments
    while_sampling = beside + max(
        found["prompts"].memory + params * work.copies,
        found["a token"].memory + params * work.copies,
        found["larger cache"].memory + params + copy,
    )
    while_updating = kept + max(found["gradient"].memory + moments, found["optimiser"].memory + frozen)
    memory = {
        "parameters": (params + frozen, params + frozen),
        "reference": (kept, kept),
        "optimiser": (moments, moments),
        "copy to sample with": (copy, 0.0),
        "keys and values": (caches, 0.0),
        "gradient": (0.0, params),
    }
    named = map(sum, zip(*memory.values(), strict=True))
    rest = (total - known for total, known in zip((while_sampling, while_updating), named, strict=True))
    return Plan(work, on, memory | {"working space": tuple(rest)}, found)


def parameters(work: Work) -> int:
    return sum(map(prod, param_shapes(work.cfg).values()))


def least(work: Work, reference: bool) -> float:
    """Bytes of a device that parameters, moments, gradients and caches take, known without compiling."""
    held, cfg = Held(work), work.cfg
    params, moments, copy = map(per_device, (held.state.params, held.state.opt_state, held.sampled))
    fixed = moments + params * (1 + reference) + (per_device(held.frozen) if work.lora_rank else 0.0)
    tokens = work.prompts * (work.prompt_tokens + work.groups * work.max_tokens) / work.mesh.size
    caches = 2 * cfg.layers * cfg.kv_heads * cfg.head_width * jnp.dtype(work.dtype).itemsize * tokens
    return fixed + max(copy * work.copies + caches, params)


def meshes(work: Work, devices: tuple[jax.Device, ...]) -> Iterator[Work]:
    """The same work on each mesh that divides it, the least cut over `tensor` first."""
    for tensor in range(1, len(devices) + 1):
        sizes = (1, len(devices) // tensor, tensor)
        if len(devices) % tensor == 0 and not uncut(work.cfg, sizes) and work.prompts % sizes[1] == 0:
            yield replace(work, mesh=make_mesh(sizes, devices))


def roomiest(work: Work, on: Slice, reference: bool) -> Work | None:
    """On the mesh with the least `tensor` on which what is known beforehand leaves room, else on the one that leaves
    most; None where no mesh divides the work."""
    found, smallest = None, inf
    for each in meshes(work, on.devices):
        needed = least(each, reference)
        if needed < ROOM * on.memory:
            return each
        if needed < smallest:
            found, smallest = each, needed
    return found


def easier(work: Work, on: Slice, reference: bool) -> Iterator[tuple[Work, Slice]]:
    """What may fit where this does not, the smallest change first: activations in smaller parts, more of `tensor`,
    fewer prompts, larger slices."""
    small = replace(work, remat=True)
    while small.memory > SMALLEST_MEMORY and least(work, reference) < on.memory:
        small = replace(small, memory=small.memory / 4)
        yield small, on
    for each in meshes(small, on.devices):
        if each.mesh.shape["tensor"] > work.mesh.shape["tensor"] and least(each, reference) < ROOM * on.memory:
            yield each, on
    fewer = small
    while fewer.prompts % (2 * work.mesh.shape["fsdp"]) == 0:
        fewer = replace(fewer, prompts=fewer.prompts // 2)
        if least(fewer, reference) < ROOM * on.memory:
            yield fewer, on
    for other in map(find_slice, larger(on.name) if on.chip else ()):
        each = roomiest(work, other, reference)
        if each and least(each, reference) < ROOM * other.memory:
            yield each, other


def nearest(work: Work, on: Slice, *, reference: bool, elsewhere: bool = True, tries: int = 6) -> Plan | None:
    """The first of `easier` that the compiler fits, of so many; if not `elsewhere`, all of the work on this slice."""
    for _, (each, where) in zip(range(tries), easier(work, on, reference), strict=False):
        if not elsewhere and (where is not on or each.prompts < work.prompts):
            return None
        found = plan(each, where, reference=reference)
        if found.fits:
            return found
    return None


def flags(of: Plan, than: Plan) -> str:
    """How the settings of a plan differ from those of another, as they are given."""
    changed = {"topology": (of.on.name, than.on.name), "mesh": tuple(map(sizes, (of.work, than.work)))}
    changed |= {"prompts-per-step": (of.work.prompts, than.work.prompts)}
    changed |= {"update-memory": (of.work.memory / 1e9, than.work.memory / 1e9)}
    text = " ".join(f"--{name} {new}" for name, (new, old) in changed.items() if new != old)
    return text + " --remat" * (of.work.remat and not than.work.remat)


def sizes(work: Work) -> str:
    return ",".join(str(work.mesh.shape[axis]) for axis in AXES)

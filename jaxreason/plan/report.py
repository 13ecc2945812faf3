"""A plan: what a step needs on each device and how long it takes at least, whether it fits, and what would."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil, inf, prod

import jax
import jax.numpy as jnp

from jaxreason.distributed.mesh import MESH_AXES, make_mesh
from jaxreason.models.cost import decode_flops, prefill_flops, training_flops
from jaxreason.models.partition import indivisible_dim
from jaxreason.models.transformer import param_shapes
from jaxreason.plan.figures import DoesNotFit, Figures
from jaxreason.plan.programs import DeviceState, StepSpec, per_device, programs
from jaxreason.plan.slices import Slice, find_slice, larger
from jaxreason.sampling.continuous_batching import cache_bucket

ROOM = 0.85
"""Of a chip's memory that parameters, moments, gradients and caches may take, so that a mesh is worth compiling for."""


@dataclass(frozen=True)
class Plan:
    work: StepSpec
    on: Slice
    memory: dict[str, tuple[float, float]]
    """Bytes of a device, by kind, while sampling and while updating."""
    programs: dict[str, Figures]
    reference: bool
    """Whether the initial parameters are kept, too."""

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
        return {
            "arithmetic": arithmetic,
            "memory": traffic,
            "links": sum(figures.collective_bytes.values()) / chip.ici_bandwidth,
        }

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
        sampling = prefill_flops(work.cfg, read) + work.group_size * decode_flops(work.cfg, read, written)
        of_prompt = 3 * prefill_flops(work.cfg, read)
        of_completions = work.group_size * training_flops(work.cfg, written, read + written / 2)
        return work.prompts * (sampling + of_prompt + of_completions)


def plan(work: StepSpec, on: Slice, *, reference: bool = False, whole: bool = False) -> Plan:
    """Asks the compiler. `reference`: another copy of the initial parameters is kept, for a KL."""
    held, found, memory = DeviceState(work), programs(work, whole), known(work, reference)
    trained, moments, sampled = map(per_device, (held.state.params, held.state.opt_state, held.sampled))
    frozen = per_device(held.frozen) if work.lora_rank else 0.0
    caches = found["a token"].arguments - sampled
    beside = (
        max(found["prompts"].memory - sampled, found["a token"].memory - sampled, found["larger cache"].memory),
        max(found["gradient"].memory - frozen, found["optimiser"].memory - moments) - 2 * trained,
    )
    rest = {"keys and values": (caches, 0.0), "working space": (beside[0] - caches, beside[1])}
    return Plan(work, on, memory | rest, found, reference)


def known(work: StepSpec, reference: bool) -> dict[str, tuple[float, float]]:
    """Bytes of a device that are known without compiling, by kind, while sampling and while updating."""
    held = DeviceState(work)
    trained, moments, sampled = map(per_device, (held.state.params, held.state.opt_state, held.sampled))
    frozen = per_device(held.frozen) if work.lora_rank else 0.0
    kept = trained if reference and not work.lora_rank else 0.0
    return {
        "parameters": (trained + frozen, trained + frozen),
        "reference": (kept, kept),
        "optimiser": (moments, moments),
        "copy to sample with": (sampled * work.copies, 0.0),
        "gradient": (0.0, trained),
    }


def parameters(work: StepSpec) -> int:
    return sum(map(prod, param_shapes(work.cfg).values()))


def memory_lower_bound(work: StepSpec, reference: bool) -> float:
    """Bytes of a device that are known without compiling, with those of the caches."""
    cfg = work.cfg
    tokens = work.prompts * (work.prompt_tokens + work.group_size * cache_bucket(work.max_tokens - 1)) / work.mesh.size
    caches = 2 * cfg.layers * cfg.kv_heads * cfg.head_dim * jnp.dtype(work.dtype).itemsize * tokens
    sampling, updating = map(sum, zip(*known(work, reference).values(), strict=True))
    return max(sampling + caches, updating)


def extrapolate_memory(found: Plan, work: StepSpec) -> float:
    """Bytes of a device for other settings than those planned, about: what is known of them, the rest in proportion to
    the tokens that a device has at a time."""

    def tokens(work: StepSpec) -> tuple[float, float]:
        size, pieces = work.part
        return work.prompts / work.mesh.size, size / pieces / work.mesh.size

    sampling, updating = map(sum, zip(*known(work, found.reference).values(), strict=True))
    grown = [now / before for now, before in zip(tokens(work), tokens(found.work), strict=True)]
    rest = [sum(found.memory[kind][i] for kind in ("keys and values", "working space")) for i in (0, 1)]
    return max(sampling + rest[0] * grown[0], updating + rest[1] * grown[1])


def meshes(work: StepSpec, devices: tuple[jax.Device, ...]) -> Iterator[StepSpec]:
    """The same work on each mesh that divides it, the least cut over `tensor` first."""
    for tensor in range(1, len(devices) + 1):
        sizes = (1, len(devices) // tensor, tensor)
        if len(devices) % tensor == 0 and not indivisible_dim(work.cfg, sizes) and work.prompts % sizes[1] == 0:
            yield replace(work, mesh=make_mesh(sizes, devices))


def best_mesh(work: StepSpec, on: Slice, reference: bool) -> StepSpec | None:
    """On the mesh with the least `tensor` on which what is known beforehand leaves room, else on the one that leaves
    most; None where no mesh divides the work."""
    found, smallest = None, inf
    for each in meshes(work, on.devices):
        needed = memory_lower_bound(each, reference)
        if needed < ROOM * on.memory:
            return each
        if needed < smallest:
            found, smallest = each, needed
    return found


def smaller_specs(work: StepSpec, on: Slice) -> Iterator[tuple[StepSpec, Slice]]:
    """Other settings, the smallest change first: activations in smaller parts, more of `tensor`, fewer prompts, larger
    slices."""
    small = [replace(work, remat=True, memory=work.memory / 4**n) for n in range(1, 4)]
    yield from ((each, on) for each in small)
    yield from ((each, on) for each in meshes(small[-1], on.devices) if cut(each) > cut(work))
    fewer = work.prompts
    while fewer % (2 * work.mesh.shape["fsdp"]) == 0:
        fewer //= 2
        yield from ((replace(each, prompts=fewer), on) for each in (work, small[-1]))
    for other in map(find_slice, larger(on.name) if on.chip else ()):
        yield from ((each, other) for each in meshes(work, other.devices))


def cut(work: StepSpec) -> int:
    return work.mesh.shape["tensor"]


def nearest(found: Plan, *, elsewhere: bool = True, tries: int = 3) -> Plan | None:
    """The first of `smaller_specs` that the compiler fits, of so many that seem to; if not `elsewhere`, all of the work on
    this slice."""
    for work, on in smaller_specs(found.work, found.on):
        if not elsewhere and (on is not found.on or work.prompts < found.work.prompts):
            return None
        if extrapolate_memory(found, work) < on.memory and tries:
            tries -= 1
            with suppress(DoesNotFit):
                better = plan(work, on, reference=found.reference)
                if better.fits:
                    return better
    return None


def flags(of: Plan, than: Plan) -> str:
    """How the settings of a plan differ from those of another, as they are given."""
    changed = {"topology": (of.on.name, than.on.name), "mesh": tuple(map(sizes, (of.work, than.work)))}
    changed |= {"prompts-per-step": (of.work.prompts, than.work.prompts)}
    changed |= {"update-memory": (of.work.memory / 1e9, than.work.memory / 1e9)}
    text = " ".join(f"--{name} {new}" for name, (new, old) in changed.items() if new != old)
    return text + " --remat" * (of.work.remat and not than.work.remat)


def sizes(work: StepSpec) -> str:
    return ",".join(str(work.mesh.shape[axis]) for axis in MESH_AXES)

"""A plan: the memory that a step needs on each device, whether it fits, and the least time that it takes."""

from dataclasses import dataclass
from math import ceil, prod

from jaxreason.distributed.mesh import MESH_AXES
from jaxreason.models.cost import decode_flops, prefill_flops, training_flops
from jaxreason.models.transformer import param_shapes
from jaxreason.plan.figures import Figures
from jaxreason.plan.programs import DeviceState, StepSpec, bytes_per_device, programs
from jaxreason.plan.slices import Slice


@dataclass(frozen=True)
class Plan:
    spec: StepSpec
    topology: Slice
    reason: str
    """Why this candidate was tried."""
    memory: dict[str, tuple[float, float]]
    """Kind -> bytes of a device (while sampling, while updating)."""
    programs: dict[str, Figures]
    reference: bool
    """Whether a copy of the initial parameters stays on the devices, for the KL."""

    @property
    def peak(self) -> float:
        return max(map(sum, zip(*self.memory.values(), strict=True)))

    @property
    def fits(self) -> bool:
        return self.peak <= self.topology.memory

    @property
    def calls(self) -> dict[str, int]:
        """Calls of each program in a step whose completions all reach the length limit."""
        microbatches = ceil(self.spec.prompts / self.spec.microbatch[0])
        return {"prompts": 1, "a token": self.spec.max_tokens - 1, "gradient": microbatches, "optimiser": 1}

    def seconds(self, name: str) -> dict[str, float]:
        """Lower bounds of one call of a program, by what bounds it; empty if the chip's peaks are unknown."""
        figures, chip = self.programs[name], self.topology.chip
        if chip is None:
            return {}
        return {
            "arithmetic": figures.flops / chip.flops,
            "memory": figures.traffic / chip.bandwidth,
            "links": sum(figures.collective_bytes.values()) / chip.ici_bandwidth,
        }

    @property
    def times(self) -> tuple[float, float]:
        """Lower bounds in seconds of a step's sampling and update."""
        total = {name: calls * max(self.seconds(name).values()) for name, calls in self.calls.items()}
        return total["prompts"] + total["a token"], total["gradient"] + total["optimiser"]

    @property
    def model_flops(self) -> float:
        """FLOPs of the model in a step, without recomputation."""
        spec = self.spec
        prompt, completion = spec.prompt_tokens, spec.max_tokens
        sampling = prefill_flops(spec.cfg, prompt) + spec.group_size * decode_flops(spec.cfg, prompt, completion)
        prompt_update = 3 * prefill_flops(spec.cfg, prompt)
        completion_update = spec.group_size * training_flops(spec.cfg, completion, prompt + completion / 2)
        return spec.prompts * (sampling + prompt_update + completion_update)


def plan(
    spec: StepSpec, topology: Slice, reason: str = "as requested", *, reference: bool = False, whole: bool = False
) -> Plan:
    """Compiles the step's programs; `whole` compiles every layer. Raises `DoesNotFit` if the compiler gives up."""
    resident, figures, memory = DeviceState(spec), programs(spec, whole), resident_memory(spec, reference)
    state, sampled = resident.state, bytes_per_device(resident.sampled)
    trained, moments = bytes_per_device(state.params), bytes_per_device(state.opt_state)
    frozen = bytes_per_device(resident.frozen) if spec.lora_rank else 0.0
    caches = figures["a token"].arguments - sampled
    sampling = max(
        figures["prompts"].memory - sampled, figures["a token"].memory - sampled, figures["larger cache"].memory
    )
    updating = max(figures["gradient"].memory - frozen, figures["optimiser"].memory - moments) - 2 * trained
    memory |= {"keys and values": (caches, 0.0), "working space": (sampling - caches, updating)}
    return Plan(spec, topology, reason, memory, figures, reference)


def resident_memory(spec: StepSpec, reference: bool) -> dict[str, tuple[float, float]]:
    """Kind -> bytes of a device (while sampling, while updating) of all that shapes alone tell, before compiling."""
    resident = DeviceState(spec)
    state, sampled = resident.state, bytes_per_device(resident.sampled)
    trained, moments = bytes_per_device(state.params), bytes_per_device(state.opt_state)
    frozen = bytes_per_device(resident.frozen) if spec.lora_rank else 0.0
    initial = trained if reference and not spec.lora_rank else 0.0
    return {
        "parameters": (trained + frozen, trained + frozen),
        "reference": (initial, initial),
        "optimiser": (moments, moments),
        "copy to sample with": (sampled * spec.copies_params, 0.0),
        "gradient": (0.0, trained),
    }


def parameter_count(spec: StepSpec) -> int:
    return sum(map(prod, param_shapes(spec.cfg).values()))


def mesh_sizes(spec: StepSpec) -> str:
    return ",".join(str(spec.mesh.shape[axis]) for axis in MESH_AXES)

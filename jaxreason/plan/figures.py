"""Memory, arithmetic, memory traffic and collectives of a compiled program, per device.

XLA's cost analysis counts the body of a loop once. The matrix products of further iterations are added from the jaxpr,
their collectives from the compiled HLO.
"""

import re
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from jaxreason.errors import InputError

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
DTYPE_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4}
DTYPE_BYTES |= {"s64": 8, "u64": 8, "f64": 8}
TPU_OPTIMIZATION_LEVEL = "O0"
"""Compiles in a tenth of the time; the programs take a few per cent more memory and time."""


class DoesNotFit(InputError):
    """The compiler ran out of device memory."""


class Figures(NamedTuple):
    """Of one call on one device, in bytes and floating-point operations."""

    arguments: float
    working: float
    """Temporaries, and results that are not aliased to arguments."""
    flops: float
    traffic: float
    """Bytes read from and written to memory."""
    collective_bytes: dict[str, float]
    """Bytes sent to other devices by ring algorithms, by kind of collective."""

    @property
    def memory(self) -> float:
        return self.arguments + self.working


def measure(function: jax.stages.Wrapped, *args: Any, **kwargs: Any) -> tuple[Figures, Any]:
    """Compiles a jitted function for `ShapeDtypeStruct`s with shardings; returns its figures and results' shapes."""
    traced = function.trace(*args, **kwargs)
    devices = jax.tree.leaves((args, kwargs))[0].sharding.device_set
    level = jax.config.jax_optimization_level  # pyright: ignore[reportAttributeAccessIssue]
    if next(iter(devices)).platform == "tpu":
        jax.config.update("jax_optimization_level", TPU_OPTIMIZATION_LEVEL)
    try:
        compiled: Any = traced.lower().compile()  # its figures are optional, except on CPU, GPU and TPU
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"\([\d.]+\w\) exceeds available HBM \([\d.]+\w\)", str(error))
        raise DoesNotFit(
            f"a few layers alone do not fit ({used[0] if used else 'out of memory'}): give fewer --prompts-per-step, "
            "less --activation-gb, or a larger --topology"
        ) from error
    finally:
        jax.config.update("jax_optimization_level", level)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    repeated = sum(
        (times - 1) * np.array([flops, traffic]) / len(devices) for times, flops, traffic in matmuls(traced.jaxpr.jaxpr)
    )
    flops, traffic = np.array([cost.get("flops", 0.0), cost.get("bytes accessed", 0.0)]) + repeated
    working = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    arguments, working, flops, traffic = map(float, (memory.argument_size_in_bytes, working, flops, traffic))
    figures = Figures(arguments, working, flops, traffic, collective_bytes(compiled.as_text()))
    results = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        traced.out_info,
        compiled.output_shardings,
    )
    return figures, results


def matmuls(jaxpr: core.Jaxpr, times: int = 1) -> Iterator[tuple[int, float, float]]:
    """(executions, FLOPs, bytes read and written) of every matrix product, over all devices.

    The body of a `while` loop counts as one execution.
    """
    for eqn in jaxpr.eqns:
        shapes: list[Any] = [x.aval for x in (*eqn.invars, *eqn.outvars)]
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = prod(shapes[0].shape[axis] for axis in contracted)
            yield times, 2.0 * depth * prod(shapes[2].shape), sum(float(x.size * x.dtype.itemsize) for x in shapes)
        length = eqn.params["length"] // eqn.params["unroll"] if eqn.primitive.name == "scan" else 1
        for inner in core.jaxprs_in_params(eqn.params):
            yield from matmuls(inner, times * length)


def collective_bytes(program: str) -> dict[str, float]:
    """Bytes that each device sends in one run of a compiled program (HLO text), by kind of collective."""
    computations = dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", program, re.S | re.M))
    totals: dict[str, float] = {kind: 0.0 for kind in COLLECTIVES}
    seen = set()

    def visit(name: str, times: int) -> None:
        counted = set()
        for line in computations[name].splitlines():
            if collective := re.search(rf" = (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(", line):
                result, kind, start = collective.groups()
                key = tuple(re.findall(r"channel_id=\d+|metadata=\{.*?\}", line))
                if "channel_id" not in line or key not in seen:  # TPU programs may repeat one in other computations
                    counted.add(key)
                    totals[kind] += times * _bytes_sent(kind, result, start is not None, _group_size(line))
            if loop := re.search(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                visit(loop[2], times * _trip_count(computations[loop[1]]))
            for called in re.findall(r"(?:calls|to_apply|branch_computations|called_computations)=\{?([^}\s,]*)", line):
                if called.lstrip("%") in computations:
                    visit(called.lstrip("%"), times)
        seen.update(counted)

    for entry in re.findall(r"^ENTRY %?([\w.\-]+)", program, re.M):
        visit(entry, 1)
    return totals


def _trip_count(condition: str) -> int:
    """Of a loop that ends at a constant; 1 if unknown."""
    constants = re.findall(r"s32\[\]\S* constant\((\d+)\)", condition)
    return int(constants[0]) if len(constants) == 1 else 1


def _group_size(line: str) -> int:
    """Devices in a collective's group, in each of XLA's notations."""
    if named := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    if counted := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(counted[2])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    return len(listed[1].split(",")) if listed else 2


def _bytes_sent(kind: str, result: str, start: bool, group: int) -> float:
    """By one device in a ring of `group`; `result` is the HLO type, of an async `-start` its operands come first."""
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", result)
    sizes = [DTYPE_BYTES[x] * prod(map(int, filter(None, shape.split(",")))) for x, shape in shapes if x in DTYPE_BYTES]
    if kind == "collective-permute":
        return float(sizes[0] if start else sum(sizes))
    if start and kind != "all-reduce":
        sizes = sizes[len(sizes) // 2 :]
    rounds = {"all-gather": 1, "all-to-all": 1, "all-reduce": 2, "reduce-scatter": group}[kind]
    return float(sum(sizes) * ((group - 1) / group * rounds))

"""What the compiler says of a program: memory, arithmetic, traffic and what devices send each other.

XLA counts the body of a loop once. What its further passes compute is added from the traced program, what they send
from the compiled one.
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
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8}
QUICK = "O0"
"""Optimisation for TPUs: a tenth of the time to compile; the programs take a few per cent more."""


class DoesNotFit(InputError):
    """The compiler gave up."""


class Figures(NamedTuple):
    """Of one device, per call; bytes, and floating-point operations."""

    arguments: float
    working: float
    """Results that do not take an argument's place, and everything between."""
    flops: float
    traffic: float
    """Bytes read from and written to memory."""
    collective_bytes: dict[str, float]
    """Bytes sent to other devices, by kind of collective, each as a ring sends it."""

    @property
    def memory(self) -> float:
        return self.arguments + self.working


def measure(function: Any, *args: Any, **named: Any) -> tuple[Figures, Any]:
    """Compiles a jitted function for arguments that are shapes with shardings: its figures, its results as shapes."""
    traced = function.trace(*args, **named)
    devices = jax.tree.leaves((args, named))[0].sharding.device_set
    level = jax.config.jax_optimization_level
    if next(iter(devices)).platform == "tpu":
        jax.config.update("jax_optimization_level", QUICK)
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"\([\d.]+\w\) exceeds available HBM \([\d.]+\w\)", str(error))
        raise DoesNotFit(
            f"a few layers alone do not fit ({used[0] if used else 'out of memory'}): give fewer --prompts-per-step, "
            "less --update-memory, or a larger --topology"
        ) from error
    finally:
        jax.config.update("jax_optimization_level", level)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    again = sum(
        (times - 1) * np.array([flops, traffic]) / len(devices)
        for times, flops, traffic in products(traced.jaxpr.jaxpr)
    )
    flops, traffic = np.array([cost.get("flops", 0.0), cost.get("bytes accessed", 0.0)]) + again
    working = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    figures = Figures(
        float(memory.argument_size_in_bytes),
        float(working),
        float(flops),
        float(traffic),
        collective_bytes(compiled.as_text()),
    )
    results = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        traced.out_info,
        compiled.output_shardings,
    )
    return figures, results


def products(jaxpr: core.Jaxpr, times: int = 1) -> Iterator[tuple[int, float, float]]:
    """Every matrix product of a program: how often a call runs it, its operations, and the bytes it reads and writes.

    The body of a loop of unknown length counts as run once.
    """
    for eqn in jaxpr.eqns:
        shapes = [x.aval for x in (*eqn.invars, *eqn.outvars)]
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = prod(shapes[0].shape[axis] for axis in contracted)
            yield times, 2.0 * depth * prod(shapes[2].shape), sum(float(x.size * x.dtype.itemsize) for x in shapes)
        passes = eqn.params["length"] // eqn.params["unroll"] if eqn.primitive.name == "scan" else 1
        for inner in core.jaxprs_in_params(eqn.params):
            yield from products(inner, times * passes)


def collective_bytes(program: str) -> dict[str, float]:
    """Bytes that each device sends in one run of a compiled program, by kind of collective."""
    computations = {
        name: body for name, body in re.findall(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", program, re.S | re.M)
    }
    entry = re.search(r"^ENTRY %?([\w.\-]+)", program, re.M)[1]
    totals, seen = dict.fromkeys(COLLECTIVES, 0.0), set()

    def visit(name: str, times: int) -> None:
        for line in computations[name].splitlines():
            if found := re.search(rf" = (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(", line):
                channel = re.search(r"channel_id=(\d+)", line)
                if channel is None or channel[1] not in seen:  # one collective may be spread over several programs
                    seen.add(channel and channel[1])
                    totals[found[2]] += times * _sent(found[2], found[1], bool(found[3]), _group(line))
            if loop := re.search(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                visit(loop[2], times * _passes(computations[loop[1]]))
            for called in re.findall(r"(?:calls|to_apply|branch_computations|called_computations)=\{?([^}\s,]*)", line):
                if called.lstrip("%") in computations:
                    visit(called.lstrip("%"), times)

    visit(entry, 1)
    return totals


def _passes(condition: str) -> int:
    """Of a loop that ends at a constant; 1 where it is not known."""
    constants = re.findall(r"s32\[\]\S* constant\((\d+)\)", condition)
    return int(constants[0]) if len(constants) == 1 else 1


def _group(line: str) -> int:
    """How many devices take part, for any of the ways in which XLA writes groups."""
    if named := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    if counted := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(counted[2])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    return len(listed[1].split(",")) if listed else 2


def _sent(kind: str, result: str, begins: bool, group: int) -> float:
    sizes = [BYTES[kind] * prod(map(int, filter(None, shape.split(",")))) for kind, shape in _shapes(result)]
    if begins and kind != "all-reduce":  # operands and results
        sizes = sizes[:1] if kind == "collective-permute" else sizes[len(sizes) // 2 :]
    share = {"all-gather": 1, "all-to-all": 1, "all-reduce": 2, "reduce-scatter": group, "collective-permute": None}[
        kind
    ]
    return float(sum(sizes) * ((group - 1) / group * share if share else 1))


def _shapes(text: str) -> list[tuple[str, str]]:
    return [(kind, shape) for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", text) if kind in BYTES]

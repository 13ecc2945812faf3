"""TPU slices that the compiler can target, and the devices present.

Peaks are those published at https://cloud.google.com/tpu/docs (bfloat16, one chip); memory is what the compiler grants.
"""

import os
from dataclasses import dataclass
from math import prod

import jax
from jax.experimental import topologies

from jaxreason.distributed.mesh import Devices
from jaxreason.errors import InputError
from jaxreason.runs import choose


@dataclass(frozen=True)
class Chip:
    flops: float
    """Peak floating-point operations a second, in bfloat16."""
    bandwidth: float
    """Bytes a second from and to HBM."""
    memory: float
    """Bytes of HBM."""
    ici_bandwidth: float
    """Bytes a second sent to neighbours, over all links."""


GIB = 2**30
"""The compiler's unit."""
CHIPS = {
    "v5e": Chip(197e12, 819e9, 15.75 * GIB, 200e9),
    "v5p": Chip(459e12, 2765e9, 95.74 * GIB, 600e9),
    "v6e": Chip(918e12, 1640e9, 31.25 * GIB, 448e9),
}
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
SLICES = {f"{chip}:{shape}": chip for chip in CHIPS for shape in (FLAT if chip in ("v5e", "v6e") else CUBES)}
"""Name -> chip; the smallest slice of each chip first."""


@dataclass(frozen=True)
class Slice:
    name: str
    devices: Devices
    """Targets of compilation; programs run on them only if they are present."""
    chip: Chip | None
    """None: peaks unknown."""
    memory: float
    """Bytes of each device."""


def chip_count(name: str) -> int:
    return prod(map(int, name.partition(":")[2].split("x")))


def larger_slices(name: str) -> list[str]:
    """Slices with more chips of the same kind, the smallest first."""
    return [other for other, chip in SLICES.items() if chip == SLICES[name] and chip_count(other) > chip_count(name)]


def find_slice(name: str) -> Slice:
    """The slice of that name, such as `v5e:2x2`; for an empty name, the devices present."""
    if not name:
        return _local_devices()
    choose("topology", name, SLICES)
    chip = CHIPS[SLICES[name]]
    return Slice(name, tuple(_topology(name).devices), chip, chip.memory)


def _topology(name: str) -> topologies.TopologyDescription:
    options = {"chips_per_host_bounds": (1, 1, 1)} if chip_count(name) == 1 else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:  # jax re-raises whatever loading the plugin raised
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"--topology {name} needs the TPU compiler ({reason}): pip install 'jaxreason[tpu]'"
        ) from error


def _local_devices() -> Slice:
    devices = jax.devices()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit") if devices[0].platform != "cpu" else None
    memory = limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)
    return Slice(f"{len(devices)} x {devices[0].device_kind}", tuple(devices), None, memory)

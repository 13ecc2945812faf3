"""Slices of TPUs that the compiler can be asked about, and the device that is present.

Peaks are those published at https://cloud.google.com/tpu/docs (bfloat16, one chip); memory is what the compiler grants.
"""

import os
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
from jax.experimental import topologies

from jaxreason.errors import InputError
from jaxreason.runs import choose


@dataclass(frozen=True)
class Chip:
    flops: float
    """Products and sums a second, in bfloat16."""
    bandwidth: float
    """Bytes a second from and to its memory."""
    memory: float
    """Bytes."""
    ici_bandwidth: float
    """Bytes a second that it sends to its neighbours, all links together."""


GIB = 2**30
"""As the compiler counts."""
CHIPS = {
    "v5e": Chip(197e12, 819e9, 15.75 * GIB, 200e9),
    "v5p": Chip(459e12, 2765e9, 95.74 * GIB, 600e9),
    "v6e": Chip(918e12, 1640e9, 31.25 * GIB, 448e9),
}
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
SLICES = {f"{chip}:{shape}": chip for chip in CHIPS for shape in (FLAT if chip in ("v5e", "v6e") else CUBES)}
"""Each chip's, the smallest first."""


@dataclass(frozen=True)
class Slice:
    name: str
    devices: tuple[jax.Device, ...]
    """Of which a mesh is made: what is compiled for them cannot run here unless they are present."""
    chip: Chip | None
    """None where the peaks are not known."""
    memory: float
    """Bytes of each device."""


def size(name: str) -> int:
    """Chips of a slice."""
    return prod(map(int, name.partition(":")[2].split("x")))


def larger(name: str) -> list[str]:
    """Slices of the same chip with more of them, the smallest first."""
    return [each for each, chip in SLICES.items() if chip == SLICES[name] and size(each) > size(name)]


def find_slice(name: str) -> Slice:
    """The slice called `v5e:2x2` or the like, or, for an empty name, the devices present."""
    if not name:
        return _present()
    choose("topology", name, SLICES)
    chip = CHIPS[SLICES[name]]
    return Slice(name, tuple(_topology(name).devices), chip, chip.memory)


def _topology(name: str) -> Any:
    """The TPU compiler's own description."""
    more = {"chips_per_host_bounds": (1, 1, 1)} if size(name) == 1 else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **more)
    except Exception as error:  # jax passes on whatever the plugin's loading raised
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"--topology {name} needs the TPU compiler ({reason}): pip install 'jaxreason[tpu]'"
        ) from error


def _present() -> Slice:
    devices = jax.devices()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit") if devices[0].platform != "cpu" else None
    memory = limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)
    return Slice(f"{len(devices)} x {devices[0].device_kind}", tuple(devices), None, memory)

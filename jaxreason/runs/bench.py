"""Side-by-side timing: the contenders take turns in one process, so that what slows the machine slows them all."""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from rich.table import Table

Contenders = dict[str, Callable[[], Any]]
"""By name, ours first: each call does the whole work once and returns when it is done."""


def interleave(contenders: Contenders, rounds: int, report: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds of every call, A B C A B C ...; a first, uncounted round compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, call in contenders.items():
            begin = time.perf_counter()
            call()
            took = time.perf_counter() - begin
            report(f"{'first' if turn == 0 else f'round {turn}':>8}  {name:<24}{took:9.3f} s")
            if turn:
                seconds[name].append(took)
    return seconds


def compare(seconds: dict[str, list[float]], work: float, unit: str) -> tuple[dict[str, Any], Table]:
    """Medians, rates (`work` per second, in `unit`) and how many times as long as ours the others took."""
    table = Table("", "median s", unit, "ours is faster by")
    ours = statistics.median(next(iter(seconds.values())))
    figures: dict[str, Any] = {"device": f"{jax.devices()[0].device_kind}, {platform.machine()}", "unit": unit}
    for name, times in seconds.items():
        middle = statistics.median(times)
        figures[name] = {"median_s": middle, "seconds": times, "rate": work / middle, "ratio": middle / ours}
        table.add_row(name, f"{middle:.3f}", f"{work / middle:.1f}", f"{middle / ours:.2f} x")
    return figures, table

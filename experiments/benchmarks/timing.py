"""Side-by-side timing: the contenders take turns, so that what slows the machine slows them all."""

import json
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from jaxreason.cache import enable_compilation_cache
from jaxreason.runs.folder import write_json

Call = Callable[[], Any]
"""Does the whole work once, and returns when it is done."""


class WorkerProcess:
    """A contender in a process of its own: none lives with another's threads, or touches what it gave back of memory.

    `prepare`, a function that can be pickled, returns the call that is to be timed.
    """

    def __init__(self, prepare: Callable[[], Call]):
        self._process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._process.submit(_prepare, prepare).result()

    def __call__(self) -> None:
        self._process.submit(_call).result()

    def peak_gb(self) -> float:
        """Largest resident memory of its process so far."""
        return self._process.submit(peak_gb).result()


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    if (status := Path("/proc/self/status")).exists():  # Linux's ru_maxrss begins with that of the parent
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


_prepared: list[Call] = []


def _prepare(prepare: Callable[[], Call]) -> None:
    enable_compilation_cache()
    _prepared.append(prepare())


def _call() -> None:
    _prepared[0]()


def start_workers(contenders: dict[str, Callable[[], Call]], console: Console) -> dict[str, Call]:
    """Each contender `WorkerProcess`; peers that cannot be had are named."""
    calls = {}
    for name, prepare in contenders.items():
        try:
            calls[name] = WorkerProcess(prepare)
        except ImportError as error:
            console.print(f"{name} is absent: {error}")
    return calls


def benchmark(contenders: dict[str, Call], cfg: Any, console: Console, *, work: float, unit: str) -> dict[str, Any]:
    """`cfg.rounds` turns of each, ours first; prints rates (`work` per second, in `unit`) and how many times as long as
    ours the others took, then the figures as one JSON line, which `cfg.out` names a file for."""
    seconds = interleave(contenders, cfg.rounds, console)
    ours = statistics.median(next(iter(seconds.values())))
    device = f"{jax.devices()[0].device_kind}, {platform.machine()}"
    figures: dict[str, Any] = {"config": asdict(cfg), "device": device, "unit": unit}
    table = Table("", "median s", unit, "ours is faster by", "peak GB")
    for name, times in seconds.items():
        middle, call = statistics.median(times), contenders[name]
        figures[name] = {"median_s": middle, "seconds": times, "rate": work / middle, "ratio": middle / ours}
        peak = ""
        if isinstance(call, WorkerProcess):
            figures[name]["peak_gb"] = call.peak_gb()
            peak = f"{figures[name]['peak_gb']:.2f}"
        table.add_row(name, f"{middle:.3f}", f"{work / middle:.1f}", f"{middle / ours:.2f} x", peak)
    console.print(table)
    print(json.dumps(figures))
    if cfg.out:
        write_json(Path(cfg.out), figures)
    return figures


def interleave(contenders: dict[str, Call], rounds: int, console: Console) -> dict[str, list[float]]:
    """Seconds of every call, A B C A B C ...; a first, uncounted round compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, call in contenders.items():
            begin = time.perf_counter()
            call()
            took = time.perf_counter() - begin
            console.print(f"{'first' if turn == 0 else f'round {turn}':>8}  {name:<24}{took:9.3f} s")
            if turn:
                seconds[name].append(took)
    return seconds

"""What looks after a long run: notices that it is to end, that it stands still, that it has broken; and traces it."""

import faulthandler
import math
import os
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import Any

import jax

from jaxreason.errors import InputError

STALL_SECONDS = 1800.0
"""Without a finished step, or twenty times the longest one so far: a first step also compiles."""
BAD_STEPS = 10
"""In a row that must have gone wrong before a run is given up; so many updates that are not finite are skipped."""
LEAST_REWARD, FALLEN = 0.05, 0.1
"""A mean reward over so many steps that was at least this and falls to this part of it has collapsed."""
LEAST_EXPECTED = 20
"""Unless so few rewarded completions were to be expected that it may be chance."""


class SignalHandler:
    """`given` is True from SIGTERM on, with which clusters announce that they will take the machine away."""

    def __init__(self):
        self.given = False

    def __enter__(self) -> "SignalHandler":
        if current_thread() is main_thread():
            self._before = signal.signal(signal.SIGTERM, self._take)
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.given = True

    def __exit__(self, *_) -> None:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, self._before)


class Watchdog:
    """Ends the process, with the places where its threads stand, when `heartbeat` is not called for too long."""

    def __init__(self, what: str, seconds: float = STALL_SECONDS):
        self.what, self.seconds, self.longest = what, seconds, 0.0
        self._last, self._over = time.monotonic(), Event()

    def heartbeat(self) -> None:
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now

    def __enter__(self) -> "Watchdog":
        Thread(target=self._watch, daemon=True).start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self.seconds / 4)):
            patience = max(self.seconds, 20 * self.longest)
            if time.monotonic() - self._last > patience:
                faulthandler.dump_traceback(sys.stderr)
                message = f"error: {self.what} stands still, no step in {patience:.0f} s (threads above)"
                print(f"{message}; run the same command to go on from the last checkpoint", file=sys.stderr, flush=True)
                os._exit(1)

    def __exit__(self, *_) -> None:
        self._over.set()


class DivergenceMonitor:
    """`health(metrics)` says in words what is wrong with a run, or nothing; `falling` is True while its reward is far
    below what it was, when it is not to be saved. (Updates that are skipped leave good parameters.)"""

    def __init__(self):
        self.falling = False
        self._skipped, self._not_finite, self._best = 0.0, 0, 0.0
        self._rewards: deque[float] = deque(maxlen=BAD_STEPS)

    def __call__(self, metrics: dict[str, Any]) -> str:
        skipped = float(metrics.get("skipped_updates", 0))
        self._not_finite = self._not_finite + 1 if skipped > self._skipped else 0
        self._skipped = skipped
        if self._not_finite >= BAD_STEPS:
            return f"gradients are not finite in {BAD_STEPS} steps one after the other"
        self._rewards.append(float(metrics.get("reward_mean", 0.0)))
        mean = statistics.fmean(self._rewards)
        if len(self._rewards) == BAD_STEPS:
            self._best = max(self._best, mean)
        completions = float(metrics.get("tokens", math.inf)) / max(float(metrics.get("length_mean", 1)), 1)
        if self._best < LEAST_REWARD or self._best * BAD_STEPS * completions < LEAST_EXPECTED:
            return ""
        self.falling = statistics.fmean(list(self._rewards)[-3:]) < self._best / 2
        return f"the mean reward fell from {self._best:.3f} to {mean:.3f}" if mean < FALLEN * self._best else ""


def traced(results: Iterable[tuple], steps: str, done: int, folder: Path) -> Iterator[tuple]:
    """Passes results on, `done` steps lying behind, and writes a profile of `steps` ("3" or "3-5") to `folder`, for
    TensorBoard or https://ui.perfetto.dev."""
    first, last = traced_steps(steps) if steps else (0, 0)
    results, tracing = iter(results), False
    try:
        for step in count(done + 1):
            if step == first:
                jax.profiler.start_trace(str(folder), create_perfetto_trace=True)
                tracing = True
            result = next(results, None)
            if tracing and (step == last or result is None):
                jax.profiler.stop_trace()
                tracing = False
            if result is None:
                return
            yield result
    finally:
        if tracing:
            jax.profiler.stop_trace()


def traced_steps(text: str) -> tuple[int, int]:
    try:
        first, last = (int(end) for end in (text.split("-") * 2)[:2])
    except ValueError as error:
        raise InputError(f"--profile {text!r} is not a step or two: give 3, or 3-5") from error
    if not 1 <= first <= last:
        raise InputError(f"--profile {text} holds no step: give the first and the last, as 3-5")
    return first, last

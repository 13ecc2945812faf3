"""Watching a long run: termination signals, stalls, divergence, and profiles of single steps."""

import faulthandler
import math
import os
import signal
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import Any

import jax

from jaxreason.errors import InputError

STALL_SECONDS = 1800.0
"""Without a finished step; at least twenty times the longest step so far, since a first step also compiles."""
BAD_STEPS = 10
"""Bad steps in a row after which a run is stopped; until then, updates that are not finite are skipped."""
IDLE_BATCHES = 5
"""Batches without any advantage in a row, after which a run says what to change."""
MIN_REWARD, COLLAPSE = 0.05, 0.1
"""A mean reward over `BAD_STEPS` that was at least `MIN_REWARD` and falls to this fraction of its best has
collapsed,"""
MIN_EXPECTED = 20
"""unless fewer rewarded completions than this were expected, so that it may be chance."""


class SignalHandler:
    """`received` is True once SIGTERM came, with which clusters announce that they will take the machine away."""

    def __init__(self):
        self.received = False

    def __enter__(self) -> "SignalHandler":
        if current_thread() is main_thread():
            self._before = signal.signal(signal.SIGTERM, self._take)
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def __exit__(self, *_) -> None:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, self._before)


class Watchdog:
    """Ends the process, with a traceback of every thread, when `heartbeat` is not called for too long."""

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
    """`monitor(metrics)` returns what is wrong with a run, or an empty text. `falling` is True while the reward is far
    below its best: such a state is not saved. (Skipped updates leave good parameters.)"""

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
        if self._best < MIN_REWARD or self._best * BAD_STEPS * completions < MIN_EXPECTED:
            return ""
        self.falling = statistics.fmean(list(self._rewards)[-3:]) < self._best / 2
        return f"the mean reward fell from {self._best:.3f} to {mean:.3f}" if mean < COLLAPSE * self._best else ""


class IdleMonitor:
    """`monitor(metrics)` returns what to change once `IDLE_BATCHES` in a row had no signal, else an empty text."""

    def __init__(self):
        self._in_a_row = 0

    def __call__(self, metrics: dict[str, Any]) -> str:
        self._in_a_row = self._in_a_row + 1 if metrics.get("idle_batch") else 0
        if self._in_a_row != IDLE_BATCHES:
            return ""
        easy = float(metrics["reward_mean"]) > 0.5
        return (
            f"{IDLE_BATCHES} batches in a row moved nothing: in every group all completions earned the same. Raise "
            f"--temperature or --group-size, or take {'harder' if easy else 'easier'} problems"
        )


class StepProfiler:
    """Traces steps ("3" or "3-5"; empty: none) to `folder`, for TensorBoard or https://ui.perfetto.dev."""

    def __init__(self, steps: str, folder: Path):
        self.first, self.last = profiled_steps(steps)
        self.folder, self._tracing = folder, False

    def begin_step(self, step: int) -> None:
        if step == self.first:
            jax.profiler.start_trace(str(self.folder), create_perfetto_trace=True)
            self._tracing = True

    def end_step(self, step: int) -> None:
        if step == self.last:
            self._stop()

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False


def profiled_steps(text: str) -> tuple[int, int]:
    """The first and the last step of "3" or "3-5"; 0 and 0 of an empty text."""
    if not text:
        return 0, 0
    try:
        first, last = (int(end) for end in (text.split("-") * 2)[:2])
    except ValueError as error:
        raise InputError(f"--profile {text!r} is not a step or a range: give 3, or 3-5") from error
    if not 1 <= first <= last:
        raise InputError(f"--profile {text} holds no step: give the first and the last, as 3-5")
    return first, last

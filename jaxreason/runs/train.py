"""Training to the end in a run folder: every step logged, some saved, an interruption continued."""

from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from jaxreason.runs.folder import RunFolder
from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.state import TrainState

Advance = Callable[[TrainState], Iterator[tuple]]
"""The remaining steps from a state: each (state after it, metrics, ...)."""


def train(
    initial: TrainState,
    advance: Advance,
    *,
    steps: int,
    save_every: int,
    folder: RunFolder,
    console: Console,
    title: str,
) -> TrainState:
    """From the folder's last checkpoint, else from `initial`, to step `steps`; `initial` may be donated."""
    with Checkpoints(folder.path / "checkpoints") as checkpoints:
        state = checkpoints.restore_or(initial)
        folder.resume(int(state.step))
        for state, metrics, *_ in advance(state):  # noqa: B020 -- the state a step leaves is the next one's
            step = int(state.step)
            folder.log({"step": step, **_floats(metrics)}, [])
            if step % save_every == 0 or step == steps:
                checkpoints.save(state)
                console.print(f"{title}: step {step} of {steps}, loss {float(metrics['loss']):.3f}")
    folder.close()
    return state


def _floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}

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
    token_budget: int = 0,
) -> TrainState:
    """From the folder's last checkpoint, else from `initial`, to step `steps`; `initial` may be donated.

    With a `token_budget` it ends sooner, after the step in which the sum of `tokens_read` reaches it.
    """
    with Checkpoints(folder.path / "checkpoints") as checkpoints:
        state = checkpoints.restore_or(initial)
        folder.resume(int(state.step))
        read = sum(row["tokens_read"] for row in folder.metrics()) if token_budget else 0
        if not token_budget or read < token_budget:
            for state, metrics, *_ in advance(state):  # noqa: B020 -- the state a step leaves is the next one's
                step, metrics = int(state.step), _floats(metrics)
                folder.log({"step": step, **metrics}, [])
                read += metrics["tokens_read"] if token_budget else 0
                last = step == steps or bool(token_budget and read >= token_budget)
                if step % save_every == 0 or last:
                    checkpoints.save(state)
                    console.print(f"{title}: step {step} of {steps}, loss {metrics['loss']:.3f}")
                if last:
                    break
    folder.close()
    return state


def _floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}

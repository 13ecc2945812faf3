"""Training to the end in a run folder: every step logged, some saved, an interruption continued."""

from collections.abc import Callable, Iterator

from rich.console import Console

from jaxreason.runs.display import show_progress
from jaxreason.runs.folder import RunFolder
from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.state import TrainState

Advance = Callable[[TrainState], Iterator[tuple]]
"""The remaining steps from a state: each (state after it, metrics) or (state, metrics, samples)."""

SCORE = "validation_lenient_pass@1"
"""A step with this metric is saved, and its checkpoint kept while it is the best."""


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
        todo = advance(state) if not token_budget or read < token_budget else ()
        how = {"done": int(state.step), "total": steps, "title": title, "every": save_every}
        for state, metrics, *samples in show_progress(todo, console, **how):
            metrics = {"step": int(state.step), **{name: _plain(value) for name, value in metrics.items()}}
            folder.log(metrics, *samples)
            read += metrics["tokens_read"] if token_budget else 0
            last = metrics["step"] == steps or bool(token_budget and read >= token_budget)
            if metrics["step"] % save_every == 0 or last or SCORE in metrics:
                checkpoints.save(state, score=metrics.get(SCORE))
            if last:
                break
    folder.close()
    return state


def _plain(value) -> float | int:
    return value if isinstance(value, int) else float(value)

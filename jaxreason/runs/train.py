"""Training to the end in a run folder: every step logged, some saved, an interruption continued."""

from collections.abc import Callable, Iterator

from rich.console import Console

from jaxreason.distributed.multihost import any_process
from jaxreason.errors import Stopped
from jaxreason.runs.display import show_progress
from jaxreason.runs.folder import RunFolder
from jaxreason.runs.monitoring import DivergenceMonitor, SignalHandler, Watchdog, traced
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
    profile: str = "",
) -> TrainState:
    """From the folder's last checkpoint, else from `initial`, to step `steps`; `initial` may be donated.

    With a `token_budget` it ends sooner, after the step in which the sum of `train_tokens` reaches it. SIGTERM on any
    host saves and ends it, and so does what `DivergenceMonitor` finds wrong, without saving; both raise `Stopped`. `profile` are
    steps to trace (`traced`).
    """
    checkpoints, notice = Checkpoints(folder.path / "checkpoints"), SignalHandler()
    with checkpoints, notice, Watchdog(title) as watchdog:
        state = checkpoints.restore_or(initial)
        folder.resume(int(state.step))
        read = sum(row["train_tokens"] for row in folder.metrics()) if token_budget else 0
        todo = advance(state) if not token_budget or read < token_budget else ()
        how = {"done": int(state.step), "total": steps, "title": title, "every": save_every}
        todo, health = traced(todo, profile, int(state.step), folder.path / "profile"), DivergenceMonitor()
        for state, metrics, *samples in show_progress(todo, console, **how):
            metrics = {"step": int(state.step), **{name: _plain(value) for name, value in metrics.items()}}
            folder.log(metrics, *samples)
            watchdog.heartbeat()
            if wrong := health(metrics):
                raise Stopped(f"step {metrics['step']}: {wrong}; {_kept(checkpoints)}", status=1)
            read += metrics["train_tokens"] if token_budget else 0
            last = metrics["step"] == steps or bool(token_budget and read >= token_budget)
            told = any_process(notice.given)
            due = metrics["step"] % save_every == 0 and not health.falling
            if due or last or told or SCORE in metrics:
                checkpoints.save(state, score=metrics.get(SCORE))
            if last:
                break
            if told:
                checkpoints.wait()
                raise Stopped(f"told to end, saved step {metrics['step']}: run the same command to go on", status=143)
    folder.close()
    return state


def _kept(checkpoints: Checkpoints) -> str:
    """Of a run that broke."""
    steps = checkpoints.steps()
    kept = f"the last good checkpoint is {checkpoints.folder / str(steps[-1])}" if steps else "nothing was saved before"
    return f"{kept}: lower --learning-rate or raise --kl-weight, in another --out"


def _plain(value) -> float | int:
    return value if isinstance(value, int) else float(value)

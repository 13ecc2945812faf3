"""What a person sees while a run goes on: a line a step, and a progress bar below it in a terminal."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

REWARD_LINE = (
    "reward {reward_mean:.3f}  strict {strict_share:.3f}  lenient {lenient_share:.3f}  "
    "zero-std groups {frac_reward_zero_std:.2f}  length {length_mean:5.1f}  entropy {entropy:.2f}  "
    "grad {grad_norm:.2f}  {tokens_per_second:.0f} tokens/s  sampling {seconds_sampling:.1f} s  "
    "update {seconds_update:.1f} s"
)
PAIR_LINE = "loss {loss:.3f}  margin {margin:.3f}  accuracy {accuracy:.2f}"
LOSS_LINE = "loss {loss:.3f}"


class StepLines:
    """Prints each step in which a reward is optimised; of other steps the last one and those that `every` divides."""

    def __init__(self, console: Console, *, title: str, done: int, total: int, every: int):
        self.console, self.total, self.every = console, total, every
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._progress = Progress(TextColumn(title), *columns, console=console, transient=True)
        self._bar = self._progress.add_task("steps", total=total, completed=done)
        started = f"{done} of {total} steps were done before" if done else "the first step takes longer: it compiles"
        console.print(started)

    def __enter__(self) -> "StepLines":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def show(self, metrics: Mapping[str, Any]) -> None:
        step, rewarded = metrics["step"], "reward_mean" in metrics
        if rewarded or step % self.every == 0 or step == self.total:
            line = REWARD_LINE if rewarded else PAIR_LINE if "margin" in metrics else LOSS_LINE
            kl = f"  kl {metrics['kl']:.3f}" if rewarded and metrics.get("kl") else ""
            self.console.print(f"step {step:>4}  {line.format(**metrics)}{kl}", soft_wrap=True)
        self._progress.update(self._bar, completed=step)

    def stop(self) -> None:
        self._progress.stop()

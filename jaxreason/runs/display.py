"""What a person sees while a run goes on: a line a step, and a bar below it in a terminal."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxreason.evaluation.evaluate import Evaluation
from jaxreason.evaluation.report import one_line
from jaxreason.tasks import Problem
from jaxreason.training.loop import StepResult
from jaxreason.types import Params


def evaluate_sets(
    params: Params,
    sets: Mapping[str, Sequence[Problem]],
    measure: Callable[[Params, Sequence[Problem]], Evaluation],
    console: Console,
    label: str,
) -> dict[str, dict[str, Any]]:
    """Measures each set, shows its accuracy in a line, and returns the evaluations as dictionaries."""
    done = {}
    for name, problems in sets.items():
        done[name] = measure(params, problems)._asdict()
        console.print(f"{label}, {name}: {one_line(done[name]['summary'])}")
    return done


def show_progress(results: Iterable[StepResult], done: int, total: int, console: Console) -> Iterator[StepResult]:
    """Passes `results` on and shows each; `done` of `total` steps lie behind already."""
    if done:
        console.print(f"{done} of {total} steps were done before")
    else:
        console.print("the first step also compiles, which takes longer")
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn("GRPO"), *columns, console=console, transient=True) as progress:
        task = progress.add_task("steps", total=total, completed=done)
        for result in results:
            m = result.metrics
            console.print(
                f"step {m['step']:>4}  reward {m['reward_mean']:.3f}  strict {m['strict_share']:.3f}  "
                f"lenient {m['lenient_share']:.3f}  constant groups {m['constant_groups_share']:.2f}  "
                f"length {m['length_mean']:5.1f}  entropy {m['entropy']:.2f}  grad {m['grad_norm']:.2f}  "
                f"{m['tokens_per_second']:.0f} tokens/s  "
                f"sampling {m['seconds_sampling']:.1f} s  update {m['seconds_update']:.1f} s",
                soft_wrap=True,
            )
            yield result
            progress.update(task, completed=m["step"])

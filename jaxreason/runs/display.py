"""What a person sees while a run goes on: a line a step, and a bar below it in a terminal."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxreason.evaluation.evaluate import Evaluation
from jaxreason.evaluation.report import one_line
from jaxreason.tasks import Problem
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


OF_REWARDS = (
    "reward {reward_mean:.3f}  strict {strict_share:.3f}  lenient {lenient_share:.3f}  "
    "constant groups {frac_reward_zero_std:.2f}  length {length_mean:5.1f}  entropy {entropy:.2f}  "
    "grad {grad_norm:.2f}  {tokens_per_second:.0f} tokens/s  sampling {seconds_sampling:.1f} s  "
    "update {seconds_update:.1f} s"
)
OF_PAIRS = "loss {loss:.3f}  margin {margin:.3f}  ranked right {accuracy:.2f}"
OF_TEXTS = "loss {loss:.3f}"


def show_progress(
    results: Iterable[tuple], console: Console, *, done: int, total: int, title: str, every: int
) -> Iterator[tuple]:
    """Passes (state, metrics, ...) on, `done` of `total` steps lying behind, and shows each step in which a reward is
    optimised, of other steps those whose number `every` divides, and the last."""
    if done:
        console.print(f"{done} of {total} steps were done before")
    else:
        console.print("the first step also compiles, which takes longer")
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn(title), *columns, console=console, transient=True) as progress:
        task = progress.add_task("steps", total=total, completed=done)
        for step, result in enumerate(results, done + 1):
            metrics = {name: float(value) for name, value in result[1].items()}
            sampled = "reward_mean" in metrics
            if sampled or step % every == 0 or step == total:
                line = OF_REWARDS if sampled else OF_PAIRS if "margin" in metrics else OF_TEXTS
                console.print(f"step {step:>4}  {line.format(**metrics)}", soft_wrap=True)
            yield result
            progress.update(task, completed=step)

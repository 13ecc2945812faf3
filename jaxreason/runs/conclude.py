"""The end of a run: plot, files and table of before and after."""

from typing import Any

from rich.console import Console

from jaxreason.distributed.multihost import is_main_process
from jaxreason.evaluation.report import before_after, plot_training, side_by_side
from jaxreason.runs.folder import RunFolder, write_json

Evaluations = dict[str, dict[str, Any]]
"""By the name of the held-out set, the main one first: an `Evaluation` as a dictionary."""

SHOWN = 3  # problems whose completions are shown side by side


def conclude(
    folder: RunFolder, before: Evaluations, after: Evaluations, *, title: str, console: Console
) -> dict[str, Any]:
    """Writes training.png, after.json and summary.json, prints what changed, and returns the summary.

    `wall_seconds` counts all steps and all evaluations, also those before an interruption; `tokens` counts what was
    sampled in training.
    """
    history = folder.metrics()
    seconds = sum(done["summary"]["seconds_sampling"] for sets in (before, after) for done in sets.values())
    seconds += sum(value for row in history for name, value in row.items() if name.startswith("seconds_"))
    summary = {
        "before": _flat(before),
        "after": _flat(after),
        "wall_seconds": seconds,
        "tokens": sum(row["tokens"] for row in history),
    }
    if is_main_process():
        plot_training(history, folder.path / "training.png", title=title)
        write_json(folder.path / "after.json", after)
        write_json(folder.path / "summary.json", summary)
    main = next(iter(before))
    console.print(side_by_side(before[main]["samples"], after[main]["samples"], SHOWN))
    console.print(before_after(before, after))
    console.print(f"everything of this run: {folder.path}")
    return summary


def _flat(sets: Evaluations) -> dict[str, Any]:
    """The main set's numbers, and those of each further set under its name."""
    (_, main), *others = sets.items()
    return main["summary"] | {name: done["summary"] for name, done in others}

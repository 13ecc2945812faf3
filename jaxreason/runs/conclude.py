"""The end of a run: plot, files and table of before and after."""

from typing import Any

from rich.console import Console

from jaxreason.evaluation.evaluate import Evaluation
from jaxreason.evaluation.report import before_after, plot_training
from jaxreason.runs.folder import RunFolder, write_json


def conclude(
    folder: RunFolder, before: dict[str, Any], after: Evaluation, *, title: str, console: Console
) -> dict[str, Any]:
    """Writes training.png, after.json and summary.json, prints the table, and returns the summary.

    `before` is an `Evaluation` as a dictionary. `wall_seconds` counts all steps and both evaluations, also those before
    an interruption; `tokens` counts what was sampled in training.
    """
    history = folder.metrics()
    evaluating = before["summary"]["seconds_sampling"] + after.summary["seconds_sampling"]
    stepping = sum(value for row in history for name, value in row.items() if name.startswith("seconds_"))
    summary = {
        "before": before["summary"],
        "after": after.summary,
        "wall_seconds": evaluating + stepping,
        "tokens": sum(row["tokens"] for row in history),
    }
    plot_training(history, folder.path / "training.png", title=title)
    write_json(folder.path / "after.json", after._asdict())
    write_json(folder.path / "summary.json", summary)
    console.print(before_after(before["summary"], after.summary))
    console.print(f"everything of this run: {folder.path}")
    return summary

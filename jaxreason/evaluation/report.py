"""Plots and tables of runs and evaluations."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from rich.table import Table
from rich.text import Text

from jaxreason.evaluation.metrics import wilson_interval

if TYPE_CHECKING:  # imported where used, because it takes a second
    import matplotlib.axes
    import matplotlib.figure

PANELS = {
    "accuracy": ("strict_share", "lenient_share"),
    "reward": ("reward_mean",),
    "completion length (tokens)": ("length_mean",),
    "entropy (nats)": ("entropy",),
    "loss": ("loss",),
    "reward (chosen, rejected)": ("reward_chosen", "reward_rejected"),
    "share of pairs ranked correctly": ("accuracy",),
}
MAX_PANELS = 4


def plot_training(metrics: list[dict[str, float | int]], path: Path, *, title: str) -> "matplotlib.figure.Figure":
    """Plots the first four of `PANELS` that are in `metrics`, over steps, as a PNG."""
    from matplotlib.figure import Figure

    panels = [(label, names) for label, names in PANELS.items() if names[0] in metrics[0]][:MAX_PANELS]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(10, 3 * rows), layout="constrained")
    steps = np.array([row["step"] for row in metrics])
    grid = figure.subplots(rows, 2, squeeze=False).flat
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (label, names) in zip(grid, panels, strict=False):
        for name in names:
            plot_curve(axes, steps, [row[name] for row in metrics], label=name)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        if len(names) > 1:
            axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return figure


def plot_curve(
    axes: "matplotlib.axes.Axes", steps: ArrayLike, values: ArrayLike, *, label: str, color: str | None = None
) -> None:
    """Plots points, and a line of their centred moving average over a tenth of all steps."""
    steps = np.asarray(steps)
    window = max(1, len(steps) // 10)
    (points,) = axes.plot(steps, values, ".", alpha=0.35, color=color)
    smooth = np.convolve(np.pad(values, window // 2, mode="edge"), np.ones(window) / window, mode="valid")
    axes.plot(steps, smooth[: len(steps)], color=points.get_color(), label=label)
    axes.grid(alpha=0.3)


def one_line(summary: dict[str, float | int]) -> str:
    """Strict and lenient accuracy with their standard errors."""
    return f"pass@1 {_cell('pass@1', summary)}, lenient {_cell('lenient_pass@1', summary)}, {_cell('n', summary)}"


def before_after(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Table:
    """A table of two evaluations of the same sets: all metrics of the first set, pass@1 of the others.

    Shares are in percent, accuracies with their standard error.
    """
    main, *others = before
    table = Table(main, "before", "after")
    for name in before[main]["summary"]:
        if not name.endswith("se") and name not in ("tokens", "seconds_sampling"):
            table.add_row(name, *(_cell(name, sets[main]["summary"]) for sets in (before, after)))
    for other in others:
        table.add_row(f"pass@1, {other}", *(_cell("pass@1", sets[other]["summary"]) for sets in (before, after)))
    return table


def side_by_side(before: list[dict], after: list[dict], count: int) -> Table:
    """A table of the first `count` questions, with one completion of each before and after."""
    table = Table("question", "before", "after", "answer", show_lines=True)
    old, new = ({row["question"]: row for row in reversed(samples)} for samples in (before, after))
    for question in list(reversed(old))[:count]:
        cells = (question, old[question]["completion"], new[question]["completion"], old[question]["answer"])
        table.add_row(*(Text(cell.strip()) for cell in cells))
    return table


def sets_table(summaries: dict[str, dict]) -> Table:
    """A table of several sets, one completion per problem: accuracy with 95 % Wilson intervals, lengths."""
    table = Table("set", "pass@1 [95 %]", "lenient", "length", "truncated")
    for name, summary in summaries.items():
        interval = " to ".join(f"{100 * end:.1f}" for end in _wilson(summary))
        table.add_row(
            name,
            f"{_cell('pass@1', summary).split(' ±')[0]} [{interval}]",
            _cell("lenient_pass@1", summary).split(" ±")[0],
            _cell("length_mean", summary),
            _cell("truncated_share", summary),
        )
    return table


def plot_sets(summaries: dict[str, dict], path: Path, *, title: str) -> "matplotlib.figure.Figure":
    """Plots accuracy with 95 % Wilson intervals, and mean completion length, of several sets as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(summaries)
    accuracy = np.array([summary["pass@1"] for summary in summaries.values()])
    ends = np.array([_wilson(summary) for summary in summaries.values()])
    left.barh(names, accuracy, xerr=np.abs(ends - accuracy[:, None]).T, capsize=4, alpha=0.7)
    left.set(xlabel="pass@1", xlim=(0, 1))
    left.invert_yaxis()
    right.barh(names, [summary["length_mean"] for summary in summaries.values()], alpha=0.7, color="tab:gray")
    right.set_xlabel("completion length (tokens)")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return figure


def _wilson(summary: dict[str, float | int]) -> tuple[float, float]:
    return wilson_interval(round(summary["pass@1"] * summary["n"]), int(summary["n"]))


def _cell(name: str, summary: dict[str, float | int]) -> str:
    value = summary[name]
    if name == "n":
        return f"{value:.0f} problems"
    if name == "length_mean":
        return f"{value:.1f} tokens"
    error = summary.get(name.replace("pass@1", "se")) if name.endswith("pass@1") else None
    return f"{100 * value:.1f} %" + ("" if error is None else f" ± {100 * error:.1f}")


WIDTH = 90
"""Characters per line in `plot_tokens`."""


def plot_tokens(
    rows: list[tuple[str, list[str], list[float], list[bool]]], path: Path, *, title: str
) -> "matplotlib.figure.Figure":
    """Plots texts token by token as a PNG; a row is (heading, tokens, background shade of each, framed or not)."""
    from matplotlib.figure import Figure

    headings = [wrap(row[0], WIDTH) for row in rows]
    bodies = [_lines(*row[1:]) for row in rows]
    height = sum(len(heading) + len(body) + 2 for heading, body in zip(headings, bodies, strict=True))
    figure = Figure(figsize=(9, 0.24 * height + 0.8), layout="constrained")
    axes = figure.subplots()
    largest = max((shade for row in rows for shade in row[2]), default=0.0) or 1.0
    y = 0
    for heading, body in zip(headings, bodies, strict=True):
        for line in heading:
            axes.text(0, y, line, fontsize=9, va="center", style="italic")
            y += 1
        for line in body:
            x = 0
            for token, shade, framed in line:
                box = {"facecolor": (1, 1 - 0.7 * shade / largest, 1 - shade / largest), "pad": 1.5}
                box["edgecolor"] = "black" if framed else "none"
                axes.text(x, y, token, fontsize=9, family="monospace", va="center", bbox=box)
                x += len(token) + 0.8
            y += 1
        y += 1
    axes.set(xlim=(0, WIDTH), ylim=(height - 0.5, -1), title=title)
    axes.axis("off")
    figure.savefig(path, dpi=120)
    return figure


def _lines(tokens: list[str], shades: list[float], framed: list[bool]) -> list[list[tuple[str, float, bool]]]:
    lines: list[list[tuple[str, float, bool]]] = [[]]
    for token, shade, frame in zip(tokens, shades, framed, strict=True):
        shown = token.replace("\n", "⏎").replace(" ", "·")
        if sum(len(t) + 0.8 for t, *_ in lines[-1]) + len(shown) > WIDTH - 5:
            lines.append([])
        lines[-1].append((shown, shade, frame))
        if "\n" in token:
            lines.append([])
    return [line for line in lines if line]

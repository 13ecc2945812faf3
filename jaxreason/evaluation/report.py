"""Plots and tables of runs and evaluations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from rich.table import Table
from rich.text import Text

from jaxreason.evaluation.statistics import difference_interval

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
    """Plots points, and a line of their centred moving average over about a tenth of all steps, an odd number."""
    steps = np.asarray(steps)
    side = len(steps) // 20
    (points,) = axes.plot(steps, values, ".", alpha=0.35, color=color)
    window = np.ones(2 * side + 1) / (2 * side + 1)
    smooth = np.convolve(np.pad(values, side, mode="edge"), window, mode="valid")
    axes.plot(steps, smooth, color=points.get_color(), label=label)
    axes.grid(alpha=0.3)


def one_line(summary: dict[str, float | int]) -> str:
    """Strict and lenient accuracy with their 95 % intervals."""
    return f"pass@1 {_cell('pass@1', summary)}, lenient {_cell('lenient_pass@1', summary)}, {_cell('n', summary)}"


def before_after(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Table:
    """A table of two evaluations of the same sets: all metrics of the first set, pass@1 of the others.

    Shares are in percent, accuracies and their differences, paired by problem, with 95 % intervals on problems like
    these.
    """
    main, *others = before
    table = Table(main, "before [95 %]", "after [95 %]", caption_justify="left")
    for name in before[main]["summary"]:
        if not name.endswith(("se", "low", "high")) and name not in ("tokens", "seconds_sampling"):
            table.add_row(name, *(_cell(name, sets[main]["summary"]) for sets in (before, after)))
    for other in others:
        table.add_row(f"pass@1, {other}", *(_cell("pass@1", sets[other]["summary"]) for sets in (before, after)))
    changes = (f"pass@1, {name}: {_difference(before[name], after[name])}" for name in before)
    table.caption = "after - before, paired by problem [95 %]:\n" + "\n".join(changes)
    return table


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`+34.6 points [+30.2, +38.9]`"""
    grades = [grades_by_problem(each["samples"]) for each in (before, after)]
    mean, low, high, *_ = difference_interval(grades[0], grades[1])
    return f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def grades_by_problem(samples: Sequence[Mapping[str, Any]], grade: str = "strict") -> Float[np.ndarray, "P G"]:
    """`Evaluation.samples` as a table, in the order of the problems; every problem has as many samples."""
    problems: dict[int, list[float]] = {}
    for sample in samples:
        problems.setdefault(sample["index"], []).append(sample[grade])
    return np.array(list(problems.values()), np.float64)


def side_by_side(before: list[dict], after: list[dict], count: int) -> Table:
    """A table of the first `count` questions, with one completion of each before and after."""
    table = Table("question", "before", "after", "answer", show_lines=True)
    old, new = ({row["question"]: row for row in reversed(samples)} for samples in (before, after))
    for question in list(reversed(old))[:count]:
        cells = (question, old[question]["completion"], new[question]["completion"], old[question]["answer"])
        table.add_row(*(Text(cell.strip()) for cell in cells))
    return table


def sets_table(summaries: dict[str, dict]) -> Table:
    """A table of several sets: accuracy with 95 % intervals on problems like these, lengths."""
    table = Table("set", "pass@1 [95 %]", "lenient [95 %]", "length", "truncated")
    for name, summary in summaries.items():
        metrics = ("pass@1", "lenient_pass@1", "length_mean", "truncated_share")
        table.add_row(name, *(_cell(metric, summary) for metric in metrics))
    return table


def plot_sets(summaries: dict[str, dict], path: Path, *, title: str) -> "matplotlib.figure.Figure":
    """Plots accuracy with 95 % intervals on problems like these, and mean length, of several sets as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(summaries)
    accuracy = np.array([summary["pass@1"] for summary in summaries.values()])
    ends = np.array([(summary["low"], summary["high"]) for summary in summaries.values()])
    left.barh(names, accuracy, xerr=np.abs(ends - accuracy[:, None]).T, capsize=4, alpha=0.7)
    left.set(xlabel="pass@1 (95 %)", xlim=(0, 1))
    left.invert_yaxis()
    right.barh(names, [summary["length_mean"] for summary in summaries.values()], alpha=0.7, color="tab:gray")
    right.set_xlabel("completion length (tokens)")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return figure


def _cell(name: str, summary: dict[str, float | int]) -> str:
    value = summary[name]
    if name == "n":
        return f"{value:.0f} problems"
    if name == "length_mean":
        return f"{value:.1f} tokens"
    ends = [summary[name.replace("pass@1", end)] for end in ("low", "high")] if name.endswith("pass@1") else []
    return f"{100 * value:.1f} %" + (f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else "")


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

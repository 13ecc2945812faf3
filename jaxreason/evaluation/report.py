"""What a run shows at its end: a plot of its curves and a table of before and after."""

from pathlib import Path

import numpy as np
from rich.table import Table

PANELS = {
    "accuracy": ("strict_share", "lenient_share"),
    "reward": ("reward_mean",),
    "completion length (tokens)": ("length_mean",),
    "entropy (nats)": ("entropy",),
}


def plot_training(metrics: list[dict[str, float | int]], path: Path, *, title: str) -> None:
    """Accuracy, reward, length and entropy of the training samples over steps, as a PNG.

    Points are steps; the line is a centred moving average over a tenth of the run.
    """
    from matplotlib.figure import Figure  # imported where used: it costs a second

    figure = Figure(figsize=(10, 6), layout="constrained")
    steps = np.array([row["step"] for row in metrics])
    window = max(1, len(steps) // 10)
    for axes, (label, names) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for name in names:
            values = np.array([row[name] for row in metrics])
            (points,) = axes.plot(steps, values, ".", alpha=0.35)
            smooth = np.convolve(np.pad(values, window // 2, mode="edge"), np.ones(window) / window, mode="valid")
            axes.plot(steps, smooth[: len(steps)], color=points.get_color(), label=name)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def one_line(summary: dict[str, float | int]) -> str:
    """Strict and lenient accuracy with their standard errors."""
    return f"pass@1 {_cell('pass@1', summary)}, lenient {_cell('lenient_pass@1', summary)}, {_cell('n', summary)}"


def before_after(before: dict[str, float | int], after: dict[str, float | int]) -> Table:
    """Both evaluations side by side; shares in percent with their standard error."""
    table = Table("held-out", "before", "after")
    for name in before:
        if name.endswith("se") or name in ("tokens", "seconds_sampling"):
            continue
        table.add_row(name, *(_cell(name, summary) for summary in (before, after)))
    return table


def _cell(name: str, summary: dict[str, float | int]) -> str:
    value = summary[name]
    if name == "n":
        return f"{value:.0f} problems"
    if name == "length_mean":
        return f"{value:.1f} tokens"
    error = summary.get(name.replace("pass@1", "se")) if name.endswith("pass@1") else None
    return f"{100 * value:.1f} %" + ("" if error is None else f" ± {100 * error:.1f}")

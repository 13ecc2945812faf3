"""What experiments/pattern_selection.py draws."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def plot_arrows(runs: Mapping, file: Path) -> None:
    """Each pattern's success against its share, an arrow from before to after: pure selection is vertical."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(key[:2] for key in runs))
    figure = Figure(figsize=(4.5 * len(kinds), 4.2), layout="constrained")
    for axes, kind in zip(np.ravel(figure.subplots(1, len(kinds), sharey=True, squeeze=False)), kinds, strict=True):
        seeds = [told for key, told in runs.items() if key[:2] == kind]
        names = list(dict.fromkeys(name for told in seeds for name in told.names))
        for i, name in enumerate(names):
            for told in seeds:
                if name not in told.names:
                    continue
                before, after = (told.patterns[when][name] for when in ("before", "after"))
                ends = [(p.success if p.count else before.success, p.share) for p in (before, after)]
                for place, pattern in zip(ends, (before, after), strict=True):
                    if pattern.count:
                        low, high = pattern.success_interval
                        axes.plot([low, high], [place[1]] * 2, color=f"C{i}", alpha=0.35, linewidth=1)
                axes.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": "->", "color": f"C{i}"})
            axes.plot([], [], color=f"C{i}", label=name)
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="success (95 %)", title=f"{kind[0]} start, {kind[1]}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    np.ravel(figure.axes)[0].set_ylabel("share of the completions")
    figure.savefig(file, dpi=120)


def plot_overlay(runs: Mapping, file: Path) -> None:
    """Shares over training, measured and as the theory has them from the start's shares and success alone."""
    from matplotlib.figure import Figure

    if not runs:
        return
    kinds = list(dict.fromkeys(key[:2] for key in runs))
    figure = Figure(figsize=(4.5 * len(kinds), 3.8), layout="constrained")
    for axes, kind in zip(np.ravel(figure.subplots(1, len(kinds), sharey=True, squeeze=False)), kinds, strict=True):
        told = next(told for key, told in runs.items() if key[:2] == kind)
        steps = [row["step"] for row in told.steps]
        for i, name in enumerate(told.names):
            axes.plot(steps, told.shares(name), ".", color=f"C{i}", markersize=4, label=name)
            axes.plot(steps, told.fit.path.shares[:, i], color=f"C{i}", linewidth=1)
        axes.set(xlabel="step", ylim=(-0.02, 1.02), title=f"{kind[0]} start, {kind[1]}: {told.regime.kind}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, title="dots: measured, lines: theory", title_fontsize=8)
    np.ravel(figure.axes)[0].set_ylabel("share, first seed")
    figure.savefig(file, dpi=120)

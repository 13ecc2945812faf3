"""What experiments/pattern_selection.py draws; `analyses` are `RunAnalysis` records, by start, reward and seed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxreason.evaluation import runs_interval


def plot_arrows(analyses: Mapping, file: Path) -> None:
    """Each pattern's success against its share, an arrow from before to after: pure selection is vertical. Where so
    few are left that their success is not known, it is drawn as it was."""
    colors = _colors(analyses)
    for axes, seeds in _panels(analyses, file, "share of the completions"):
        for run in seeds:
            for name in run.names:
                before, after = (patterns[name] for patterns in run.patterns)
                for pattern in run.measured(name):
                    line = {"color": colors[name], "alpha": 0.35, "linewidth": 1}
                    axes.plot(pattern.success_interval, [pattern.share] * 2, **line)
                ends = [(pattern.success, pattern.share) for pattern in run.measured(name)]
                if len(ends) == 1:
                    ends = [(ends[0][0], before.share), (ends[0][0], after.share)]
                axes.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": "->", "color": colors[name]})
        for name in dict.fromkeys(name for run in seeds for name in run.names):
            axes.plot([], [], color=colors[name], label=name)
        axes.set(xlim=(-0.02, 1), xlabel="success (95 %)")
        axes.legend(fontsize=8)


def plot_theory(analyses: Mapping, file: Path) -> None:
    """Shares over training, measured and as the theory has them from the start's shares and success alone."""
    if not analyses:
        return
    colors = _colors(analyses)
    for axes, (run, *_) in _panels(analyses, file, "share, first seed"):
        steps = [row["step"] for row in run.steps]
        for i, name in enumerate(run.names):
            axes.plot(steps, run.shares(name), ".", color=colors[name], markersize=4, label=name)
            axes.plot(steps, run.fit.path.shares[:, i], color=colors[name], linewidth=1)
        axes.set(xlabel="step")
        axes.legend(fontsize=8, title=f"{run.regime.kind}; lines: theory", title_fontsize=8)


def plot_curves(analyses: Mapping, file: Path) -> None:
    """pass@k of the start and of what became of it, seeds averaged, with 95 % intervals."""
    for axes, seeds in _panels(analyses, file, "pass@k, held out"):
        for i, label in enumerate(("start", "reinforced")):
            curves = [run.curves[i] for run in seeds]
            points = [runs_interval([curve[k] for curve in curves]) for k in curves[0]]
            means, errors = [point.mean for point in points], np.hstack([point.errors for point in points])
            axes.errorbar(list(curves[0]), means, yerr=errors, fmt="o-", markersize=4, capsize=2, label=label)
        axes.set(xscale="log", xlabel="k", xticks=list(seeds[0].curves[0]), xticklabels=list(seeds[0].curves[0]))
        axes.minorticks_off()
        axes.legend(fontsize=8)


def _colors(analyses: Mapping) -> dict[str, str]:
    """Of every pattern, the same in all panels."""
    return {name: f"C{i}" for i, name in enumerate(dict.fromkeys(n for run in analyses.values() for n in run.names))}


def _panels(analyses: Mapping[tuple, Any], file: Path, ylabel: str) -> Iterator[tuple[Any, list]]:
    """A panel for each start and reward with its seeds; the figure is saved after the last one."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(key[:2] for key in analyses))
    figure = Figure(figsize=(4.2 * len(kinds), 3.9), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(kinds), sharey=True, squeeze=False))
    panels[0].set_ylabel(ylabel)
    for axes, kind in zip(panels, kinds, strict=True):
        axes.set(ylim=(-0.02, 1.02), title=f"{kind[0]} start, {kind[1]}")
        axes.grid(alpha=0.3)
        yield axes, [run for key, run in analyses.items() if key[:2] == kind]
    figure.savefig(file, dpi=120)

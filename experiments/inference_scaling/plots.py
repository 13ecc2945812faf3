"""Plots of experiments/inference_scaling.py."""

from pathlib import Path

import numpy as np


def pareto_front(points: list[dict]) -> list[dict]:
    """The points that no cheaper one reaches in accuracy, the cheapest first."""
    front: list[dict] = []
    for point in sorted(points, key=lambda point: (point["gigaflops"], -point["accuracy"])):
        if not front or point["accuracy"] > front[-1]["accuracy"]:
            front.append(point)
    return front


def plot_scaling(points: list[dict], file: Path, title: str) -> None:
    """Accuracy (95 %) over arithmetic per answer; a line joins the points of a method, and all budgets."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    axes.plot(*_coordinates(pareto_front(points)), color="black", alpha=0.25, linewidth=6, label="Pareto front")
    lines: dict[str, list[dict]] = {}
    for point in points:
        label = "budgets of thinking" if point["method"].startswith("budget") else point["method"]
        lines.setdefault(label, []).append(point)
    markers = "osv^D<>pP*X"
    for i, (label, line) in enumerate(lines.items()):
        axes.errorbar(
            *_coordinates(line),
            yerr=np.abs([[point[end] - point["accuracy"] for point in line] for end in ("low", "high")]),
            label=label,
            color=f"C{i % 10}",
            fmt=f"{markers[i % len(markers)]}-",
            capsize=2,
            markersize=5,
            linewidth=1,
        )
    axes.set(xscale="log", xlabel="GFLOP per answer", ylabel="held-out accuracy (95 %)", title=title)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(file, dpi=120)


def _coordinates(points: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([point["gigaflops"] for point in points]), np.array([point["accuracy"] for point in points])

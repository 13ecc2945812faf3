"""What experiments/inference_scaling.py draws."""

from pathlib import Path

import numpy as np


def pareto(points: list[dict]) -> list[dict]:
    """The points that no cheaper one reaches in accuracy, the cheapest first."""
    best: list[dict] = []
    for point in sorted(points, key=lambda point: (point["gigaflops"], -point["accuracy"])):
        if not best or point["accuracy"] > best[-1]["accuracy"]:
            best.append(point)
    return best


def plot_scaling(points: list[dict], file: Path, title: str) -> None:
    """Accuracy (95 %) over arithmetic for an answer; what shares a name, or is a budget, is joined."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    front = pareto(points)
    axes.plot(*_places(front), color="black", alpha=0.25, linewidth=6, label="not beaten at any price")
    lines: dict[str, list[dict]] = {}
    for point in points:
        lines.setdefault("budgets of thinking" if point["method"].startswith("budget") else point["method"], []).append(
            point
        )
    markers = "osv^D<>pP*X"
    for i, (name, some) in enumerate(lines.items()):
        errors = [1.96 * point["se"] for point in some]
        style = {"fmt": f"{markers[i % len(markers)]}-", "capsize": 2, "markersize": 5, "linewidth": 1}
        axes.errorbar(*_places(some), yerr=errors, label=name, color=f"C{i % 10}", **style)
    axes.set(xscale="log", xlabel="GFLOP for an answer", ylabel="held-out accuracy (95 %)", title=title)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(file, dpi=120)


def _places(points: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([point["gigaflops"] for point in points]), np.array([point["accuracy"] for point in points])

"""How fast does the theory of pattern selection say that reinforcement learning finds the best way?

    python experiments/pattern_theory.py

The gradient flow of question -> pattern -> answer (arXiv 2506.04695) without any language model, in seconds: the time
until the best pattern holds 1 - epsilon where no rival succeeds more often than the start (fast), and until it holds
80 % where one does (entangled), over gamma = (1 - share of the rival) / share of the best; what a little fine-tuning on
the best pattern saves; and where self-certainty leads, which does not know the truth. Measured, not asserted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxreason.analysis.theory import flow, regime, rewards_from_inside, transition_time
from jaxreason.runs import check_limits, main, write_csv

SUCCESS = (0.9, 0.7, 0.1)  # of the best pattern, its rival, the rest
EPSILONS = (0.1, 0.05, 0.02, 0.01, 0.005)
STARTS = (0.08, 0.05, 0.03, 0.02, 0.01, 0.005)  # shares of the best pattern, beside 0.6 of the rival


@dataclass(frozen=True)
class Config:
    patterns: int = 1000  # of the questions that self-certainty is let loose on
    questions: int = 400
    seed: int = 0
    out: str = "runs/pattern_theory"


def run(cfg: Config) -> dict[str, list[dict]]:
    check_limits(cfg, {"patterns": (2, inf), "questions": (2, inf)})
    tables = {"fast": fast(), "entangled": entangled(), "certainty": certainty(cfg)}
    folder, console = Path(cfg.out), Console(highlight=False)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
        shown = Table(*rows[0], title=name)
        for row in rows:
            shown.add_row(*(f"{value:.4g}" for value in row.values()))
        console.print(shown)
    plot(tables, folder / "theory.png")
    console.print(f"everything of this run: {folder}")
    return tables


def fast() -> list[dict]:
    """No rival: time to 1 - epsilon, which epsilon makes constant where it grows with 1 / epsilon."""
    start = (0.30, 0.35, 0.35), (0.9, 0.2, 0.3)
    times = [transition_time(*start, share=1 - epsilon) for epsilon in EPSILONS]
    return [{"epsilon": e, "time": t, "time x epsilon": t * e} for e, t in zip(EPSILONS, times, strict=True)]


def entangled() -> list[dict]:
    """One rival: time to 80 %, the exponent of gamma between neighbours, and the time after fine-tuning that gives a
    tenth of all shares to the best pattern."""
    rows: list[dict] = []
    for share in STARTS:
        shares = np.array([share, 0.6, 0.4 - share])
        found = regime(shares, SUCCESS)
        cured = 0.9 * shares + [0.1, 0, 0]
        times = transition_time(shares, SUCCESS), transition_time(cured, SUCCESS)
        slope = np.nan
        if rows:
            slope = np.log(times[0] / rows[-1]["time"]) / np.log(found.gamma / rows[-1]["gamma"])
        rows.append({"share": share, "gamma": found.gamma, "time": times[0], "exponent": slope, "cured": times[1]})
    return rows


def certainty(cfg: Config) -> list[dict]:
    """Questions with patterns of uniformly drawn success and two answers: how often certainty's favourite is the best
    or the worst of them, and accuracy at the start and after a while of rewarding certainty, or the truth."""
    rng, rows = np.random.default_rng(cfg.seed), []
    for least in (0.0, 0.2, 0.4):
        success = rng.uniform(least, 1, (cfg.questions, cfg.patterns))
        favourite = rewards_from_inside(np.stack([success, 1 - success], axis=-1)).argmax(axis=1)
        places = np.arange(cfg.questions)
        best = np.mean(favourite == success.argmax(axis=1))
        worst = np.mean(favourite == success.argmin(axis=1))
        few = success[:20, :50]
        uniform = np.full(few.shape[1], 1 / few.shape[1])
        ends = {
            name: np.mean([flow(uniform, p, [3e3], rewards=paid(p)).accuracy[0] for p in few])
            for name, paid in {"certainty": inside, "truth": np.asarray}.items()
        }
        rows.append(
            {
                "success from": least,
                "favourite is best": best,
                "favourite is worst": worst,
                "its success": success[places, favourite].mean(),
                "accuracy at first": few.mean(),
                **{f"after {name}": value for name, value in ends.items()},
            }
        )
    return rows


def inside(success: Sequence[float]) -> np.ndarray:
    success = np.asarray(success)
    return rewards_from_inside(np.stack([success, 1 - success], axis=-1))


def plot(tables: dict[str, list[dict]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog([1 / row["epsilon"] for row in tables["fast"]], [row["time"] for row in tables["fast"]], "o-")
    left.set(xlabel="1 / epsilon", ylabel="time until 1 - epsilon", title="fast: no rival")
    gammas = [row["gamma"] for row in tables["entangled"]]
    right.loglog(gammas, [row["time"] for row in tables["entangled"]], "o-", label="measured")
    right.loglog(gammas, [row["cured"] for row in tables["entangled"]], "s-", label="a tenth fine-tuned to the best")
    first = tables["entangled"][0]
    right.loglog(gammas, [first["time"] * (g / first["gamma"]) ** 2 for g in gammas], ":", color="gray", label="gamma²")
    right.set(xlabel="gamma", ylabel="time until 80 %", title="entangled: one rival")
    right.set_xticks(gammas, [f"{gamma:.0f}" for gamma in gammas])
    right.minorticks_off()
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main(run, Config, __doc__)

"""How fast does reinforcement learning find the best reasoning pattern, according to the theory of pattern selection?

    python experiments/pattern_theory.py

Integrates the gradient flow of question -> pattern -> answer (arXiv 2506.04695) without a language model, in seconds:
the time until the best pattern has share 1 - epsilon if no rival is above the initial accuracy (fast regime); the time
until it has 80 % if one is (entangled), over gamma = (1 - share of the rival) / share of the best; the time saved by a
warm start on the best pattern; and the accuracy that self-certainty leads to, which does not use the correct answer.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxreason.analysis.theory import flow, regime, self_certainty_rewards, transition_time
from jaxreason.runs import check_limits, flag, main, write_csv

SUCCESS = (0.9, 0.7, 0.1)  # success rates of the best pattern, its rival, the rest
EPSILONS = (0.1, 0.05, 0.02, 0.01, 0.005)
STARTS = (0.08, 0.05, 0.03, 0.02, 0.01, 0.005)  # initial shares of the best pattern; its rival has 0.6


@dataclass(frozen=True)
class Config:
    patterns: int = flag(1000, 2)  # patterns per question, for self-certainty
    questions: int = flag(400, 2)
    seed: int = 0
    out: str = "runs/pattern_theory"


def run(cfg: Config) -> dict[str, list[dict]]:
    check_limits(cfg)
    tables = {"fast": fast(), "entangled": entangled(), "certainty": certainty(cfg)}
    folder, console = Path(cfg.out), Console(highlight=False)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
        table = Table(*rows[0], title=name)
        for row in rows:
            table.add_row(*(f"{value:.4g}" for value in row.values()))
        console.print(table)
    plot(tables, folder / "theory.png")
    console.print(f"all files of this run: {folder}")
    return tables


def fast() -> list[dict]:
    """No rival: time until 1 - epsilon; time x epsilon is constant if the time grows as 1 / epsilon."""
    start = (0.30, 0.35, 0.35), (0.9, 0.2, 0.3)
    times = [transition_time(*start, share=1 - epsilon) for epsilon in EPSILONS]
    return [{"epsilon": e, "time": t, "time x epsilon": t * e} for e, t in zip(EPSILONS, times, strict=True)]


def entangled() -> list[dict]:
    """One rival: time until 80 %, the exponent of gamma between neighbours, and the time from a warm start, which moves
    a tenth of all shares to the best pattern."""
    rows: list[dict] = []
    for share in STARTS:
        shares = np.array([share, 0.6, 0.4 - share])
        gamma, time = regime(shares, SUCCESS).gamma, transition_time(shares, SUCCESS)
        warm = transition_time(0.9 * shares + [0.1, 0, 0], SUCCESS)
        exponent = np.log(time / rows[-1]["time"]) / np.log(gamma / rows[-1]["gamma"]) if rows else np.nan
        rows.append({"share": share, "gamma": gamma, "time": time, "exponent": exponent, "warm_start": warm})
    return rows


def certainty(cfg: Config) -> list[dict]:
    """Questions with two answers and patterns of uniform success rates: how often the pattern of highest self-certainty
    is the best or the worst, and accuracy before and after training on self-certainty, or on correctness."""
    rng, rows = np.random.default_rng(cfg.seed), []
    for minimum in (0.0, 0.2, 0.4):
        success = rng.uniform(minimum, 1, (cfg.questions, cfg.patterns))
        favourite = self_certainty(success).argmax(axis=1)
        best = np.mean(favourite == success.argmax(axis=1))
        worst = np.mean(favourite == success.argmin(axis=1))
        few = success[:20, :50]
        uniform = np.full(few.shape[1], 1 / few.shape[1])
        ends = {
            name: np.mean([flow(uniform, p, [3e3], rewards=reward(p)).accuracy[0] for p in few])
            for name, reward in {"certainty": self_certainty, "truth": np.asarray}.items()
        }
        rows.append(
            {
                "success from": minimum,
                "favourite is best": best,
                "favourite is worst": worst,
                "its success": success[np.arange(cfg.questions), favourite].mean(),
                "accuracy at first": few.mean(),
                **{f"after {name}": value for name, value in ends.items()},
            }
        )
    return rows


def self_certainty(success: np.ndarray) -> np.ndarray:
    return self_certainty_rewards(np.stack([success, 1 - success], axis=-1))


def plot(tables: dict[str, list[dict]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog([1 / row["epsilon"] for row in tables["fast"]], [row["time"] for row in tables["fast"]], "o-")
    left.set(xlabel="1 / epsilon", ylabel="time until 1 - epsilon", title="fast: no rival")
    gammas = [row["gamma"] for row in tables["entangled"]]
    right.loglog(gammas, [row["time"] for row in tables["entangled"]], "o-", label="measured")
    right.loglog(gammas, [row["warm_start"] for row in tables["entangled"]], "s-", label="from a warm start")
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

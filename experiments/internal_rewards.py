"""How far does a reward from inside the model carry, and where does it turn?

    python experiments/internal_rewards.py
    python experiments/internal_rewards.py --only lenient,majority --steps 120

From one start: the verifier's reward, and five that know no answer: self-certainty, low token entropy, probable texts
(trajectory entropy), the majority's answer (TTRL), the share of equal answers (EMPO). Over training: what is right, how
sure the model is, how long its answers are; where accuracy peaks and how far it falls from there; for the majority, how
many of its labels are right. About twenty minutes a seed on two CPU cores; what is finished is not done again.
"""

from dataclasses import dataclass

import numpy as np
from rich.table import Table
from sweep import SweepConfig, flag_defaults, group_by_run, interval, sweep, write

from jaxreason.runs import flag, main

REWARDS = ("lenient", "self-certainty", "token-entropy", "trajectory-entropy", "majority", "clusters")
WINDOW = 5  # steps over which accuracy in training is averaged


@dataclass(frozen=True)
class Config(SweepConfig):
    steps: int = flag(60, 1)


def run(cfg: Config) -> list[dict]:
    flags = {name: {"reward": name, "kl_weight": 0.0, "patterns": "structural"} for name in REWARDS}
    rows, curves, folder = sweep(cfg, "internal_rewards", flags)
    for row in rows:
        row |= turning(curves[row["run"]][row["seed"]])
    table = Table(
        "reward", "pass@1 before", "after [95 %]", "peak", "at step", "fall from it", "length", "right labels"
    )
    for name, of in group_by_run(rows).items():
        mean = {key: float(np.mean([row[key] for row in of])) for key in of[0] if key not in ("run", "turns")}
        turns = sum(row["turns"] for row in of)
        fall = f"{mean['fall']:.1%} in {turns} of {len(of)}" if turns else "none"
        labels = [steps[-1].get("label_accuracy") for steps in curves[name]]
        right = (
            f"{np.mean([s[0]['label_accuracy'] for s in curves[name]]):.1%} to {np.mean(labels):.1%}"
            if labels[0]
            else ""
        )
        lengths = f"{mean['length_before']:.1f} to {mean['length_after']:.1f}"
        table.add_row(
            name,
            f"{mean['before']:.1%}",
            interval(of),
            f"{mean['peak']:.1%}",
            f"{mean['peak_step']:.0f}",
            fall,
            lengths,
            right,
        )
    metrics = {
        "lenient_share": "right answers in training",
        "entropy": "entropy, nats a token",
        "length_mean": "tokens",
    }
    write(rows, table, curves, folder, metrics)
    return rows


def turning(steps: list[dict]) -> dict:
    """The peak of accuracy in training, and whether its end lies below by more than two standard errors of both."""
    right, width = np.array([row["lenient_share"] for row in steps]), min(WINDOW, len(steps))
    smooth = np.convolve(right, np.ones(width) / width, mode="valid")
    top = int(smooth.argmax())
    windows = right[top : top + width], right[-width:]
    error = np.sqrt(sum(np.var(w, ddof=1) / width for w in windows)) if width > 1 else np.inf
    fall = float(windows[0].mean() - windows[1].mean())
    return {
        "peak": float(smooth[top]),
        "peak_step": top + (width + 1) // 2,
        "fall": fall,
        "turns": bool(fall > 2 * error),
    }


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

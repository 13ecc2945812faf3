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
from sweep import SweepConfig, flag_defaults, group_by_run, sweep, write

from jaxreason.evaluation import peak_and_fall, runs_interval
from jaxreason.runs import flag, main

REWARDS = ("lenient", "self-certainty", "token-entropy", "trajectory-entropy", "majority", "clusters")


@dataclass(frozen=True)
class Config(SweepConfig):
    steps: int = flag(60, 1)


def run(cfg: Config) -> list[dict]:
    flags = {name: {"reward": name, "kl_weight": 0.0, "patterns": "structural"} for name in REWARDS}
    done = sweep(cfg, "internal_rewards", flags)
    for row in done.rows:
        peak = peak_and_fall([step["lenient_share"] for step in done.curves[row["run"]][row["seed"]]])
        row |= {"peak": peak.value, "peak_step": peak.step, "fall": peak.fall, "turns": peak.falls}
    table = Table(
        "reward", "pass@1 before", "after [95 %]", "peak", "at step", "fall from it", "length", "right labels"
    )
    for name, of in group_by_run(done.rows).items():
        mean = {key: float(np.mean([row[key] for row in of])) for key in of[0] if key not in ("run", "turns")}
        turns = sum(row["turns"] for row in of)
        fall = f"{mean['fall']:.1%} in {turns} of {len(of)}" if turns else "none"
        labels = [steps[-1].get("label_accuracy") for steps in done.curves[name]]
        right = (
            f"{np.mean([s[0]['label_accuracy'] for s in done.curves[name]]):.1%} to {np.mean(labels):.1%}"
            if labels[0]
            else ""
        )
        lengths = f"{mean['length_before']:.1f} to {mean['length_after']:.1f}"
        table.add_row(
            name,
            f"{mean['before']:.1%}",
            str(runs_interval(done.accuracy[name])),
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
    write(done, table, metrics)
    return done.rows


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

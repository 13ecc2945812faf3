"""Which algorithm of GRPO's family learns best from one start under one budget?

    python experiments/grpo_variants.py
    python experiments/grpo_variants.py --only grpo,rloo --seeds 3

GRPO, Dr. GRPO, DAPO, GSPO, CISPO, RLOO, REINFORCE++ without and with a baseline, each with its published KL and two
updates on each batch of rollouts, so that clipping matters. The same problems, keys and number of rollouts; DAPO's
dynamic sampling may take up to three times as many. One table and one plot. About a quarter of an hour a seed on two
CPU cores; what is finished is not done again. Leaves out: training several seeds side by side (their sampling is
scheduled on the host), and tuning any of them.
"""

from dataclasses import dataclass

import numpy as np
from rich.table import Table
from sweep import SweepConfig, flag_defaults, group_by_run, sweep, write

from jaxreason.evaluation import runs_interval
from jaxreason.runs import flag, main

SAME = {"inner_updates": 2}
VARIANTS = {
    "grpo": {"algorithm": "grpo", "kl_weight": 0.04},
    "dr_grpo": {"algorithm": "dr_grpo"},
    "dapo": {"algorithm": "dapo", "max_gen_batches": 3, "overlong_buffer": 12},
    "gspo": {"algorithm": "gspo"},
    "cispo": {"algorithm": "cispo"},
    "rloo": {"algorithm": "rloo"},
    "reinforce++": {"algorithm": "reinforce++"},
    "reinforce++-baseline": {"algorithm": "reinforce++-baseline"},
}


@dataclass(frozen=True)
class Config(SweepConfig):
    steps: int = flag(20, 1)


def run(cfg: Config) -> list[dict]:
    done = sweep(cfg, "grpo_variants", {name: SAME | flags for name, flags in VARIANTS.items()})
    table = Table(
        "variant", "pass@1 before", "after [95 %]", "length", "entropy at the end", "clipped", "tokens", "seconds"
    )
    for name, of in group_by_run(done.rows).items():
        mean = {key: float(np.mean([row[key] for row in of])) for key in of[0] if key != "run"}
        seconds = mean["seconds_sampling"] + mean["seconds_update"]
        cells = (f"{mean['length_after']:.1f}", f"{mean['entropy_end']:.3f}", f"{mean['clip_fraction']:.1%}")
        table.add_row(
            name,
            f"{mean['before']:.1%}",
            str(runs_interval(done.accuracy[name])),
            *cells,
            f"{mean['tokens']:,.0f}",
            f"{seconds:.0f}",
        )
    write(done, table, {"lenient_share": "right answers in training", "entropy": "entropy, nats a token"})
    return done.rows


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

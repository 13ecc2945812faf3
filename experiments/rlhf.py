"""What does a policy make of a reward that was learned, where it could have had the true one?

    python experiments/rlhf.py
    python experiments/rlhf.py --kl-weight 0.1 --out runs/rlhf-kl

Two runs of GRPO from one start: one earns the opinion of a reward model that was trained on verified pairs of the same
start's answers (RLHF; Ouyang et al., arXiv 2203.02155), one the verifier's (RLVR). The plot shows both rewards of the
first run over its training: where the learned one goes on rising and the true one does not, the policy over-optimises
(Gao et al., arXiv 2210.10760). About a quarter of an hour on two CPU cores; what is finished is not done again.
"""

from dataclasses import dataclass
from math import inf
from pathlib import Path

import grpo_gsm8k
import reward_model
from rich.console import Console
from rich.table import Table
from roads_to_reasoning import travelled

from jaxreason.errors import InputError
from jaxreason.evaluation import plot_curve
from jaxreason.runs import check_limits, main, presets, read_rows, with_defaults

LIMITS = {"steps": (1, inf), "judge_steps": (1, inf), "kl_weight": (0, inf), "eval_problems": (1, inf)}


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # as --model elsewhere
    task: str = "grade-school"
    judge: str = ""  # folder of a reward model; empty: it is trained first
    judge_steps: int = 150
    steps: int = 100
    kl_weight: float = 0.0  # of both runs: a tie to the start is the usual remedy
    eval_problems: int = 500
    seed: int = 0
    out: str = "runs/rlhf"
    smoke: bool = False  # a few steps of each


PRESETS = presets(smoke={"steps": 2, "judge_steps": 2, "eval_problems": 24})


def run(cfg: Config) -> dict:
    check_limits(cfg, LIMITS)
    console, folder = Console(highlight=False), Path(cfg.out)
    common = {"model": cfg.model, "task": cfg.task, "seed": cfg.seed, "smoke": cfg.smoke}
    common |= {"eval_problems": cfg.eval_problems}
    judge = Path(cfg.judge or folder / "judge" / "model")
    if cfg.judge and not judge.is_dir():
        raise InputError(f"--judge {cfg.judge} is not a folder: give a reward model's, or none to have one trained")
    if not judge.exists():
        console.rule("a reward model")
        flags = {"steps": cfg.judge_steps, "out": str(folder / "judge")}
        reward_model.run(with_defaults(reward_model.Config, reward_model.PRESETS, **common, **flags))
    done, curves = {}, {}
    for name, reward in {"learned": str(judge), "verifier": "strict"}.items():
        console.rule(f"GRPO, {name} reward")
        flags = {"steps": cfg.steps, "reward": reward, "kl_weight": cfg.kl_weight, "out": str(folder / name)}
        flags = with_defaults(grpo_gsm8k.Config, grpo_gsm8k.PRESETS, **common, **flags)
        done[name] = travelled(folder / name) or grpo_gsm8k.run(flags)
        curves[name] = read_rows(folder / name / "metrics.jsonl")
    table = Table("reward", "pass@1 before", "after", "tokens before", "after")
    for name, sets in done.items():
        before, after = (f"{sets[when]['pass@1']:.1%} ± {sets[when]['se']:.1%}" for when in ("before", "after"))
        table.add_row(name, before, after, *(f"{sets[when]['length_mean']:.1f}" for when in ("before", "after")))
    console.print(table)
    plot(curves, folder / "rlhf.png")
    console.print(f"both rewards over training: {folder / 'rlhf.png'}")
    return done


def plot(curves: dict[str, list[dict]], file: Path) -> None:
    """What is true of the answers in both runs, and beside it what the learned reward says of those it trained."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    true, learned = figure.subplots(1, 2)
    for name, rows in curves.items():
        steps = [row["step"] for row in rows]
        plot_curve(true, steps, [row["strict_share"] for row in rows], label=f"trained on the {name} reward")
    true.set(xlabel="step", ylabel="answers that are right", ylim=(0, 1))
    true.legend()
    rows = curves["learned"]
    plot_curve(learned, [row["step"] for row in rows], [row["reward_mean"] for row in rows], label="", color="C0")
    learned.set(xlabel="step", ylabel="learned reward, mean")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""What does a policy make of a learned reward, where it could have had the true one?

    python experiments/rlhf.py
    python experiments/rlhf.py --kl-weight 0.1 --out runs/rlhf-kl

Two runs of GRPO from one start: one is rewarded by a reward model that was trained on verified pairs of the same
start's completions (RLHF; Ouyang et al., arXiv 2203.02155), one by the verifier (RLVR). The plot shows both rewards of
the first run over its training: where the learned one goes on rising and the true one does not, the policy
over-optimises (Gao et al., arXiv 2210.10760). About a quarter of an hour on two CPU cores; what is finished is not run
again.
"""

from dataclasses import dataclass
from pathlib import Path

import grpo_gsm8k
import reward_model
from rich.console import Console
from rich.table import Table

from jaxreason.errors import InputError
from jaxreason.evaluation import plot_curve
from jaxreason.runs import check_limits, defaults, flag, main, read_rows, run_experiment


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # as --model elsewhere
    task: str = "grade-school"
    reward_model: str = ""  # folder of a reward model; empty: it is trained first
    reward_model_steps: int = flag(150, 1)
    steps: int = flag(100, 1)
    kl_weight: float = flag(0.0, 0)  # of both runs: a KL to the start is the usual remedy
    eval_problems: int = flag(500, 1)
    seed: int = flag(0, 0, 2**32 - 1)
    out: str = "runs/rlhf"
    smoke: bool = False  # a few steps of each


flag_defaults = defaults(smoke={"steps": 2, "reward_model_steps": 2, "eval_problems": 24})


def run(cfg: Config) -> dict:
    check_limits(cfg)
    console, folder = Console(highlight=False), Path(cfg.out)
    common = {"model": cfg.model, "task": cfg.task, "seed": cfg.seed, "smoke": cfg.smoke}
    common |= {"eval_problems": cfg.eval_problems}
    learned = Path(cfg.reward_model or folder / "reward_model" / "model")
    if cfg.reward_model and not learned.is_dir():
        raise InputError(f"--reward-model {cfg.reward_model} is not a folder: give a reward model's, or none")
    if not learned.exists():
        console.rule("reward model")
        run_experiment(reward_model, folder / "reward_model", steps=cfg.reward_model_steps, **common)
    summaries, curves = {}, {}
    for name, reward in {"learned": str(learned), "verifier": "strict"}.items():
        console.rule(f"GRPO, {name} reward")
        summaries[name] = run_experiment(
            grpo_gsm8k, folder / name, steps=cfg.steps, reward=reward, kl_weight=cfg.kl_weight, **common
        )
        curves[name] = read_rows(folder / name / "metrics.jsonl")
    table = Table("reward", "pass@1 before [95 %]", "after [95 %]", "tokens before", "after")
    for name, sets in summaries.items():
        both = [sets[when] for when in ("before", "after")]
        accuracy = (f"{each['pass@1']:.1%} [{each['low']:.1%}, {each['high']:.1%}]" for each in both)
        table.add_row(name, *accuracy, *(f"{each['length_mean']:.1f}" for each in both))
    console.print(table)
    plot(curves, folder / "rlhf.png")
    console.print(f"both rewards over training: {folder / 'rlhf.png'}")
    return summaries


def plot(curves: dict[str, list[dict]], file: Path) -> None:
    """The true grade of both runs' completions, and beside it the learned reward of those it trained."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    true, learned = figure.subplots(1, 2)
    for name, rows in curves.items():
        steps = [row["step"] for row in rows]
        plot_curve(true, steps, [row["strict_share"] for row in rows], label=f"trained on the {name} reward")
    true.set(xlabel="step", ylabel="right completions", ylim=(0, 1))
    true.legend()
    rows = curves["learned"]
    plot_curve(learned, [row["step"] for row in rows], [row["reward_mean"] for row in rows], label="", color="C0")
    learned.set(xlabel="step", ylabel="learned reward, mean")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

"""Accuracy on held-out problems with intervals; tables and plots."""

from jaxreason.evaluation.evaluate import Evaluation, evaluate
from jaxreason.evaluation.metrics import maj_at_k, pass_at_k
from jaxreason.evaluation.report import (
    before_after,
    grades_by_problem,
    one_line,
    plot_curve,
    plot_sets,
    plot_tokens,
    plot_training,
    sets_table,
    side_by_side,
)
from jaxreason.evaluation.statistics import (
    Interval,
    accuracy_interval,
    bootstrap_intervals,
    difference_interval,
    peak_and_fall,
    runs_interval,
    seeds_and_problems_interval,
    seeds_interval,
    share_interval,
    upper_bound,
)

__all__ = [
    "Evaluation", "Interval", "accuracy_interval", "before_after", "bootstrap_intervals", "difference_interval",
    "evaluate", "grades_by_problem", "maj_at_k", "one_line", "pass_at_k", "peak_and_fall", "plot_curve", "plot_sets",
    "plot_tokens", "plot_training", "runs_interval", "seeds_and_problems_interval", "seeds_interval", "sets_table",
    "share_interval", "side_by_side", "upper_bound",
]  # fmt: skip

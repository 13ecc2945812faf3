"""Accuracy on held-out problems with error bars; tables and plots."""

from jaxreason.evaluation.evaluate import Evaluation, evaluate
from jaxreason.evaluation.metrics import maj_at_k, mean_with_se, pass_at_k, wilson_interval
from jaxreason.evaluation.report import (
    before_after,
    one_line,
    plot_curve,
    plot_sets,
    plot_tokens,
    plot_training,
    sets_table,
    side_by_side,
)

__all__ = [
    "Evaluation", "before_after", "evaluate", "maj_at_k", "mean_with_se", "one_line", "pass_at_k", "plot_curve",
    "plot_sets", "plot_tokens", "plot_training", "sets_table", "side_by_side", "wilson_interval",
]  # fmt: skip

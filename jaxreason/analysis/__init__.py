"""Reasoning patterns: labels, frequency and success, their change, and the theory of pattern selection."""

from jaxreason.analysis.labels import LABELLERS, Labeller, cluster_labeller, cognitive, llm_labeller, structural
from jaxreason.analysis.lexicons import LEXICONS, words_per_thousand
from jaxreason.analysis.shift import (
    Decomposition,
    Labelled,
    Pattern,
    PatternMonitor,
    crossover,
    decompose,
    label_samples,
    pass_curve,
    path_coverage,
    pattern_stats,
    rank_change_ratio,
)

__all__ = [
    "LABELLERS", "LEXICONS", "Decomposition", "Labelled", "Labeller", "Pattern", "PatternMonitor", "cluster_labeller",
    "cognitive", "crossover", "decompose", "label_samples", "llm_labeller", "pass_curve", "path_coverage",
    "pattern_stats", "rank_change_ratio", "structural", "words_per_thousand",
]  # fmt: skip

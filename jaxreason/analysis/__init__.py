"""Which way of reasoning, how often, how well; what changed; what the theory of pattern selection expects."""

from jaxreason.analysis.labels import LABELLERS, Labeller, cognitive, discovered, judged, structural
from jaxreason.analysis.lexicons import LEXICONS, words_per_thousand
from jaxreason.analysis.shift import (
    Decomposition,
    Labelled,
    Pattern,
    PatternMonitor,
    crossover,
    decompose,
    labelled,
    pass_curve,
    path_coverage,
    patterns_of,
    rank_change_ratio,
)

__all__ = [
    "LABELLERS",
    "LEXICONS",
    "Decomposition",
    "Labelled",
    "Labeller",
    "Pattern",
    "PatternMonitor",
    "cognitive",
    "crossover",
    "decompose",
    "discovered",
    "judged",
    "labelled",
    "pass_curve",
    "path_coverage",
    "patterns_of",
    "rank_change_ratio",
    "structural",
    "words_per_thousand",
]

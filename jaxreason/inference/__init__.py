"""More compute, same weights: methods that turn a model's samples into one answer, and what it costs."""

from jaxreason.inference.best_of_n import best_of_n
from jaxreason.inference.budget import ThinkingFormat, detect_thinking_format, force_budget
from jaxreason.inference.model import (
    Cost,
    Group,
    InferenceModel,
    MethodResult,
    Prompt,
    Sample,
    load_guided_model,
    load_inference_model,
)
from jaxreason.inference.refine import refine
from jaxreason.inference.scorers import Scorer, SelfCertainty, mean_logp, reward_scorer
from jaxreason.inference.search import step_search
from jaxreason.inference.self_consistency import cascade, early_stopping_vote, self_consistency, weighted_consistency
from jaxreason.inference.stream import IncrementalDetokenizer, stream

__all__ = [
    "Cost", "Group", "IncrementalDetokenizer", "InferenceModel", "MethodResult", "Prompt", "Sample", "Scorer",
    "SelfCertainty", "ThinkingFormat", "best_of_n", "cascade", "detect_thinking_format", "early_stopping_vote",
    "force_budget", "load_guided_model", "load_inference_model", "mean_logp", "refine", "reward_scorer",
    "self_consistency", "step_search", "stream", "weighted_consistency",
]  # fmt: skip

"""More compute, same weights: from rollouts or a model to an answer and what it took."""

from jaxreason.inference.best_of_n import best_of_n
from jaxreason.inference.budget import ThinkingFormat, force_budget, thinking_format
from jaxreason.inference.model import Cost, Group, InferenceModel, MethodResult, Prompt, Sample, load_inference_model
from jaxreason.inference.refine import refine
from jaxreason.inference.scorers import Scorer, SelfCertainty, mean_logp, rewarded
from jaxreason.inference.search import step_search
from jaxreason.inference.self_consistency import cascade, early_stopping_vote, self_consistency, weighted_consistency
from jaxreason.inference.stream import IncrementalDetokenizer, stream
from jaxreason.rewards.votes import (
    borda_weights,
    cluster_answers,
    is_decided,
    majority_vote,
    votes_needed,
    weighted_vote,
)

__all__ = [
    "Cost",
    "Group",
    "IncrementalDetokenizer",
    "InferenceModel",
    "MethodResult",
    "Prompt",
    "Sample",
    "Scorer",
    "SelfCertainty",
    "ThinkingFormat",
    "best_of_n",
    "borda_weights",
    "cascade",
    "cluster_answers",
    "early_stopping_vote",
    "force_budget",
    "is_decided",
    "load_inference_model",
    "majority_vote",
    "mean_logp",
    "refine",
    "rewarded",
    "self_consistency",
    "step_search",
    "stream",
    "thinking_format",
    "votes_needed",
    "weighted_consistency",
    "weighted_vote",
]

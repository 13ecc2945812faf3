"""More compute, same weights: from rollouts or a model to an answer and what it took."""

from jaxreason.inference.best_of_n import best_of_n
from jaxreason.inference.budget import Thinking, force_budget, thinking_of
from jaxreason.inference.model import Answered, Cost, Group, Prompt, Reasoner, Sample, load_reasoner
from jaxreason.inference.refine import refine
from jaxreason.inference.scorers import Scorer, SelfCertainty, mean_logp, rewarded
from jaxreason.inference.search import step_search
from jaxreason.inference.self_consistency import adaptive, self_consistency, until_decided, weighted_consistency
from jaxreason.inference.stream import Speech, stream
from jaxreason.rewards.votes import borda_weights, clusters, decided, majority_vote, votes_needed, weighted_vote

__all__ = [
    "Answered",
    "Cost",
    "Group",
    "Prompt",
    "Reasoner",
    "Sample",
    "Scorer",
    "SelfCertainty",
    "Speech",
    "Thinking",
    "adaptive",
    "best_of_n",
    "borda_weights",
    "clusters",
    "decided",
    "force_budget",
    "load_reasoner",
    "majority_vote",
    "mean_logp",
    "refine",
    "rewarded",
    "self_consistency",
    "step_search",
    "stream",
    "thinking_of",
    "until_decided",
    "votes_needed",
    "weighted_consistency",
    "weighted_vote",
]

"""Rewards without gold answers: the policy's confidence in a completion, or agreement within a group.

They rise with accuracy at first and diverge from it later (arXiv 2506.17219): log a verifier's accuracy beside them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from math import log
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxreason.models.scoring import Scores
from jaxreason.rewards import numbers
from jaxreason.rewards.votes import cluster_answers, majority_vote
from jaxreason.tasks.problem import Problem
from jaxreason.types import Array


class IntrinsicReward(NamedTuple):
    """A reward computed from the policy's own scores of its completions."""

    of_scores: Callable[[Scores, Bool[Array, "P G T"]], Float[Array, "P G"]]


def _mean(values: Float[Array, "P G T"], mask: Bool[Array, "P G T"]) -> Float[Array, "P G"]:
    return jnp.sum(jnp.where(mask, values, 0.0), axis=-1) / jnp.maximum(mask.sum(axis=-1), 1)


def self_certainty(scores: Scores, mask: Bool[Array, "P G T"]) -> Float[Array, "P G"]:
    """mean_t KL(U || p_t), U uniform: self-certainty (arXiv 2502.18581), Intuitor's reward (arXiv 2505.19590)."""
    return _mean(scores.certainty, mask)


def token_entropy(scores: Scores, mask: Bool[Array, "P G T"]) -> Float[Array, "P G"]:
    """-mean_t H(p_t): entropy minimisation, EM-RL on tokens (arXiv 2505.15134)."""
    return -_mean(scores.entropy, mask)


def trajectory_entropy(scores: Scores, mask: Bool[Array, "P G T"]) -> Float[Array, "P G"]:
    """Σ_t log p(y_t), an estimate of -H over sequences: EM-RL on sequences (arXiv 2505.15134). Favours short texts."""
    return jnp.sum(jnp.where(mask, scores.logps, 0.0), axis=-1)


SELF_CERTAINTY = IntrinsicReward(self_certainty)
TOKEN_ENTROPY = IntrinsicReward(token_entropy)
TRAJECTORY_ENTROPY = IntrinsicReward(trajectory_entropy)


class _GroupReward(ABC):
    """A reward that compares a completion with the others of its group."""

    @abstractmethod
    def of_group(self, completions: Sequence[str], problem: Problem) -> list[float]: ...

    def __call__(self, completion: str, problem: Problem) -> float:
        return self.of_group([completion], problem)[0]


class MajorityReward(_GroupReward):
    """1 for the most frequent answer of the group, else 0: TTRL (arXiv 2504.16084). TTRL votes with 64 completions and
    trains on 32 of them; here the same completions do both."""

    def of_group(self, completions: Sequence[str], problem: Problem) -> list[float]:
        answers = lenient_answers(completions, problem)
        winner = majority_vote(answers)
        if winner is None:
            return [0.0] * len(completions)
        majority = next(cluster for cluster in cluster_answers(answers) if winner in cluster)
        return [float(index in majority) for index in range(len(completions))]


class ClusterReward(_GroupReward):
    """The share of the group with the same answer: EMPO (arXiv 2504.05812).

    Rewards are 0 if all answers differ: their entropy is then that of a uniform guess, log G.
    """

    def of_group(self, completions: Sequence[str], problem: Problem) -> list[float]:
        count, rewards = len(completions), [0.0] * len(completions)
        clusters = cluster_answers(lenient_answers(completions, problem))
        shares = [len(cluster) / count for cluster in clusters]
        if count > 1 and -sum(share * log(share) for share in shares) >= log(count) - 1e-9:
            return rewards
        for cluster, share in zip(clusters, shares, strict=True):
            for index in cluster:
                rewards[index] = share
        return rewards


def lenient_answers(completions: Sequence[str], problem: Problem) -> list[str | None]:
    """The final answers; the last number where no answer is marked."""
    return [numbers.extract_answer(text, problem, lenient=True) for text in completions]


def label_agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares of correct majority labels and of correct rewards (TTRL, arXiv 2504.16084, section 4), from a step's rows.

    A reward is correct if it equals the lenient grade.
    """
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row["index"])]
    labels = [any(row["reward"] and row["lenient"] for row in group) for group in groups]
    equal = [row["reward"] == row["lenient"] for row in rows]
    return {"label_accuracy": sum(labels) / len(labels), "reward_accuracy": sum(equal) / len(equal)}

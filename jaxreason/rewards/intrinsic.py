"""Rewards from inside the model: how sure it is of itself, or how far its own answers agree. None looks at the truth.

They rise together with accuracy first and then part from it (arXiv 2506.17219): measure beside a verifier.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from math import log
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxreason.models.scoring import Scores
from jaxreason.rewards import numbers
from jaxreason.rewards.votes import clusters, majority_vote
from jaxreason.tasks.problem import Problem


class IntrinsicReward(NamedTuple):
    """A reward of completions that their policy's own scores tell."""

    of_scores: Callable[[Scores, Bool[Array, "P G T"]], Float[Array, "P G"]]


def _mean(values: Float[Array | np.ndarray, "P G T"], mask: Bool[Array, "P G T"]) -> Float[Array, "P G"]:
    return jnp.sum(jnp.where(mask, values, 0.0), axis=-1) / jnp.maximum(mask.sum(axis=-1), 1)


def self_certainty(scores: Scores, mask: Bool[Array, "P G T"]) -> Float[Array, "P G"]:
    """mean_t KL(U || p_t), U uniform: self-certainty (arXiv 2502.18581), Intuitor's reward (arXiv 2505.19590)."""
    return _mean(scores.certainty, mask)


def token_entropy(scores: Scores, mask: Bool[Array, "P G T"]) -> Float[Array, "P G"]:
    """-mean_t H(p_t): entropy minimisation, EM-RL on tokens (arXiv 2505.15134)."""
    return -_mean(scores.entropy, mask)


def trajectory_entropy(scores: Scores, mask: Bool[Array, "P G T"]) -> Float[Array, "P G"]:
    """Σ_t log p(y_t) of the completion itself, an estimate of -H over whole texts: EM-RL on sequences (arXiv
    2505.15134). Short texts earn more."""
    return jnp.sum(jnp.where(mask, scores.logps, 0.0), axis=-1)


SELF_CERTAINTY = IntrinsicReward(self_certainty)
TOKEN_ENTROPY = IntrinsicReward(token_entropy)
TRAJECTORY_ENTROPY = IntrinsicReward(trajectory_entropy)


class _OfGroup(ABC):
    """A reward that compares a completion with the others of its group."""

    @abstractmethod
    def of_group(self, completions: Sequence[str], problem: Problem) -> list[float]: ...

    def __call__(self, completion: str, problem: Problem) -> float:
        return self.of_group([completion], problem)[0]


class MajorityReward(_OfGroup):
    """1 for the answer most of the group gave, 0 for others: TTRL (arXiv 2504.16084), which votes with 64 and learns
    from 32 of them; here the same ones do both."""

    def of_group(self, completions: Sequence[str], problem: Problem) -> list[float]:
        answers = stated(completions, problem)
        winner = majority_vote(answers)
        if winner is None:
            return [0.0] * len(completions)
        same = next(cluster for cluster in clusters(answers) if winner in cluster)
        return [float(place in same) for place in range(len(completions))]


class ClusterReward(_OfGroup):
    """The share of the group that gave the same answer, while they do not all differ: EMPO (arXiv 2504.05812).

    A group whose answers' entropy is that of a uniform guess (log G) earns nothing.
    """

    def of_group(self, completions: Sequence[str], problem: Problem) -> list[float]:
        count, rewards = len(completions), [0.0] * len(completions)
        found = clusters(stated(completions, problem))
        shares = [len(cluster) / count for cluster in found]
        if count > 1 and -sum(share * log(share) for share in shares) >= log(count) - 1e-9:
            return rewards
        for cluster, share in zip(found, shares, strict=True):
            for place in cluster:
                rewards[place] = share
        return rewards


def stated(completions: Sequence[str], problem: Problem) -> list[str | None]:
    """The final answers, the last number where none is marked."""
    return [numbers.extract_answer(text, problem, lenient=True) for text in completions]


def label_agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a majority's labels are worth (TTRL, arXiv 2504.16084, section 4), from a step's completions: the share of
    groups whose label is right, and the share of rewards that equal the lenient grade."""
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row["index"])]
    right = [any(row["reward"] and row["lenient"] for row in group) for group in groups]
    equal = [row["reward"] == row["lenient"] for row in rows]
    return {"label_accuracy": sum(right) / len(right), "reward_accuracy": sum(equal) / len(equal)}

"""Algorithms as named values: advantage x surrogate x aggregation (x KL).

A variant is a `dataclasses.replace` of one of these:

    clip_higher = replace(GRPO, surrogate=partial(clipped, low=0.2, high=0.28))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxreason.objectives.advantages import (
    group_centred,
    group_normalised,
    leave_one_out,
    no_baseline,
    suffix_sum,
    sum_then_normalise,
    weighted_sum,
    whitened,
)
from jaxreason.objectives.aggregate import fixed_length, sequence_mean, token_mean, token_sum
from jaxreason.objectives.kl import k1, k2, k3
from jaxreason.objectives.shaping import high_entropy, soft_overlong
from jaxreason.objectives.surrogates import cispo, ppo_clip, reinforce, sequence_ppo_clip
from jaxreason.types import Array


@dataclass(frozen=True)
class Algorithm:
    """A recipe. Everything a published algorithm fixes is here, what a run chooses (batch, rate, lengths) is not."""

    advantage: Callable
    """rewards [P G] -> advantages [P G]."""
    surrogate: Callable
    """(logps, old_logps, advantages [P G T] or [P G 1], mask) -> TokenLoss."""
    aggregate: Callable
    """mask [P G T] -> weights [P G T]."""
    whiten: bool = False
    """Normalise advantages over all tokens of the batch."""
    kl: Callable = k3
    """(logps, reference_logps) -> per-token divergence."""
    kl_weight: float = 0.0
    """0 needs no reference model."""
    kl_in: Literal["loss", "reward", "returns"] = "loss"
    """Where the KL enters: the loss; each completion's reward (the sum of k1 over its tokens); or each token's
    advantage (that sum from the token on)."""
    combine: Callable = sum_then_normalise
    """(advantage, rewards [P G K], weights [K]) -> advantages [P G]."""
    length_reward: Callable | None = None
    """(rewards [P G], lengths [P G], length limit) -> one more reward: `jaxreason.objectives.shaping`."""
    importance: Callable | None = None
    """(trainer's, sampler's log-probabilities) -> factors of the advantages [P G T]; the trainer's are then the old
    log-probabilities."""
    top_entropy: float = 1.0
    """Share of the batch's tokens, those of the highest entropy, that have an advantage."""
    entropy_weight: float = 0.0
    """Weight of an entropy bonus for every token."""
    drop_truncated: bool = False
    """Leave completions cut by the length limit out of the loss (DAPO's overlong filtering)."""
    drop_constant: bool = False
    """Leave groups of equal rewards out of the loss and its denominator."""
    max_gen_batches: int = 1
    """Batches sampled, at most, until a full batch of groups has a signal (dynamic sampling); 1: sampled once."""

    @property
    def needs_policy_scores(self) -> bool:
        """Whether it uses the policy's own scores of the rollouts beside the sampler's log-probabilities."""
        return self.importance is not None or self.top_entropy < 1

    @property
    def has_dense_terms(self) -> bool:
        """Whether tokens without an advantage have a gradient, too."""
        return bool((self.kl_weight and self.kl_in == "loss") or self.entropy_weight)

    def describe(self) -> str:
        """The recipe in a line: advantage x surrogate x aggregation and what differs from the plain record."""
        parts = [_name(self.advantage), _name(self.surrogate), _name(self.aggregate)]
        line = " x ".join(parts) + f", KL {self.kl_weight:g}"
        line += f" ({_name(self.kl)} in the {self.kl_in})" if self.kl_weight else ""
        plain = Algorithm(self.advantage, self.surrogate, self.aggregate)
        for each in fields(self)[3:]:
            value = getattr(self, each.name)
            if value != getattr(plain, each.name) and not each.name.startswith("kl"):
                line += f", {each.name} {_name(value) if callable(value) else value}"
        return line


def _name(function: Callable) -> str:
    """`ppo_clip(low=0.2, high=0.28)` of a partial application."""
    if not isinstance(function, partial):
        return function.__name__
    return f"{function.func.__name__}({', '.join(f'{name}={value}' for name, value in function.keywords.items())})"


class TokenScores(NamedTuple):
    """What an algorithm may use beside rewards, each [P G T]; None where it does not."""

    logps: Float[Array, "P G T"]
    """The sampler's."""
    mask: Bool[Array, "P G T"]
    reference_logps: Float[Array, "P G T"] | None = None
    policy_logps: Float[Array, "P G T"] | None = None
    """The trainer's."""
    policy_entropy: Float[Array, "P G T"] | None = None


def advantages_of(
    algorithm: Algorithm, rewards: Float[Array, "P G K"], weights: Sequence[float], scores: TokenScores
) -> Float[Array, "P G #T"]:
    """Advantages of tokens, or [P G 1] of whole completions. Stages: further rewards, comparison of completions,
    returns, whitening over the batch, factors of single tokens."""
    penalty = _kl_penalty(algorithm, scores)
    rewards, weights = _with_further_rewards(algorithm, rewards, weights, penalty, scores.mask)
    advantages = algorithm.combine(algorithm.advantage, rewards, weights)[..., None]
    if penalty is not None and algorithm.kl_in == "returns":
        advantages = advantages - suffix_sum(penalty)
    if algorithm.whiten:
        advantages = whitened(advantages, scores.mask)
    return _weight_tokens(algorithm, advantages, scores)


def _kl_penalty(algorithm: Algorithm, scores: TokenScores) -> Float[Array, "P G T"] | None:
    """β k1 of every token; None where the KL is in the loss, or nowhere."""
    if not algorithm.kl_weight or algorithm.kl_in == "loss":
        return None
    assert scores.reference_logps is not None, "a KL weight needs reference_logps"
    return jnp.where(scores.mask, algorithm.kl_weight * k1(scores.logps, scores.reference_logps), 0.0)


def _with_further_rewards(
    algorithm: Algorithm,
    rewards: Float[Array, "P G K"],
    weights: Sequence[float],
    penalty: Float[Array, "P G T"] | None,
    mask: Bool[Array, "P G T"],
) -> tuple[Float[Array, "P G J"], list[float]]:
    """The rewards, the length reward and the KL penalty of whole completions; the last two weigh 1."""
    further = []
    if algorithm.length_reward:
        total = weighted_sum(rewards, weights)
        further.append(algorithm.length_reward(total, mask.sum(axis=-1), mask.shape[-1]))
    if penalty is not None and algorithm.kl_in == "reward":
        further.append(-penalty.sum(axis=-1))
    columns = [rewards, *(reward[..., None] for reward in further)]
    return jnp.concatenate(columns, axis=-1), [*weights, *[1.0] * len(further)]


def _weight_tokens(
    algorithm: Algorithm, advantages: Float[Array, "P G #T"], scores: TokenScores
) -> Float[Array, "P G #T"]:
    if algorithm.importance:
        factors = algorithm.importance(scores.policy_logps, scores.logps)
        advantages = advantages * jnp.where(scores.mask, factors, 0.0)
    if algorithm.top_entropy < 1:
        assert scores.policy_entropy is not None, "top_entropy needs policy_entropy"
        advantages = advantages * high_entropy(scores.policy_entropy, scores.mask, share=algorithm.top_entropy)
    return advantages


class PolicyLoss(NamedTuple):
    loss: Float[Array, ""]
    clip_mask: Bool[Array, "P G T"]
    kl: Float[Array, "P G T"]
    """To the reference; 0 without one."""


def policy_loss(
    algorithm: Algorithm,
    logps: Float[Array, "P G T"],
    entropy: Float[Array, "P G T"],
    *,
    old_logps: Float[Array, "P G T"],
    reference_logps: Float[Array, "P G T"],
    advantages: Float[Array, "P G #T"],
    weights: Float[Array, "P G T"],
    mask: Bool[Array, "P G T"],
) -> PolicyLoss:
    """sum_t w_t (surrogate_t + β KL_t - η H_t), H the entropy, over the tokens the policy chose."""
    old_logps, reference_logps = (jnp.where(mask, x, 0.0) for x in (old_logps, reference_logps))
    loss, clip_mask = algorithm.surrogate(logps, old_logps, advantages, mask)
    kl = jnp.zeros_like(logps)
    if algorithm.kl_weight:
        kl = algorithm.kl(logps, reference_logps)
        loss += algorithm.kl_weight * kl if algorithm.kl_in == "loss" else 0.0
    if algorithm.entropy_weight:
        loss -= algorithm.entropy_weight * entropy
    return PolicyLoss(jnp.sum(jnp.where(mask, weights * loss, 0.0)), clip_mask, kl)


GRPO = Algorithm(group_normalised, ppo_clip, sequence_mean)
"""Group Relative Policy Optimisation, DeepSeekMath (arXiv 2402.03300), without its KL term (published weight 0.04)."""

DR_GRPO = Algorithm(group_centred, ppo_clip, fixed_length)
"""GRPO "done right" (arXiv 2503.20783): no division by the deviation, none by the completion's own length."""

DAPO = Algorithm(
    group_normalised,
    partial(ppo_clip, low=0.2, high=0.28),
    token_mean,
    length_reward=partial(soft_overlong, buffer=0.2),
    drop_truncated=True,
    drop_constant=True,
    max_gen_batches=10,
)
"""DAPO (arXiv 2503.14476): clip-higher, mean over tokens, overlong filtering and penalty, dynamic sampling. The paper
samples until the batch is full; the bound of ten batches is verl's."""

GSPO = Algorithm(group_normalised, sequence_ppo_clip, sequence_mean)
"""Group Sequence Policy Optimisation (arXiv 2507.18071): one ratio a completion. Its clipping range is narrow (3e-4,
4e-4), for four updates on each batch of rollouts; with a single update it is GRPO."""

CISPO = Algorithm(group_normalised, cispo, token_mean)
"""MiniMax-M1 (arXiv 2506.13585): clipped weights, no clipped gradients, no KL. Leaves out the paper's dynamic sampling
and length penalty, which are DAPO's."""

RLOO = Algorithm(leave_one_out, reinforce, token_sum, kl_weight=0.05, kl_in="reward")
"""REINFORCE leave-one-out (arXiv 2402.14740): the others' mean is the baseline, a completion is one action. KL weight
as in TRL's trainer, whose ratios and clipping for further updates on a batch are left out."""

REINFORCE_PLUS_PLUS = Algorithm(no_baseline, ppo_clip, token_mean, whiten=True, kl_weight=0.01, kl_in="returns")
"""REINFORCE++ (arXiv 2501.03262): no comparison within groups; returns minus the KL to come, normalised over the batch.
KL weight and mean over tokens as in OpenRLHF."""

REINFORCE_PLUS_PLUS_BASELINE = Algorithm(group_centred, ppo_clip, token_mean, whiten=True, kl=k2, kl_weight=0.01)
"""The same with the group's mean as a baseline, and the KL in the loss, by the estimator whose gradient is the KL's."""

ALGORITHMS = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
    "rloo": RLOO,
    "reinforce++": REINFORCE_PLUS_PLUS,
    "reinforce++-baseline": REINFORCE_PLUS_PLUS_BASELINE,
}


@cache
def resolve_algorithm(
    name: str,
    *,
    kl_weight: float | None = None,
    entropy_weight: float | None = None,
    top_entropy: float | None = None,
    max_gen_batches: int | None = None,
    overlong_buffer: int | float | None = None,
) -> Algorithm:
    """The record of that name with some fields replaced; None keeps the record's. An `overlong_buffer` of 0 removes the
    length reward. Cached: an equal call returns the same object, so that jitted functions find it again."""
    changes = {
        "kl_weight": kl_weight,
        "entropy_weight": entropy_weight,
        "top_entropy": top_entropy,
        "max_gen_batches": max_gen_batches,
    }
    algorithm = replace(ALGORITHMS[name], **{field: value for field, value in changes.items() if value is not None})
    if overlong_buffer is not None:
        overlong = partial(soft_overlong, buffer=overlong_buffer) if overlong_buffer else None
        algorithm = replace(algorithm, length_reward=overlong)
    return algorithm

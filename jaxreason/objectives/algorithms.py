"""Algorithms as named values: advantage x surrogate x aggregation (x KL).

A variant is a `dataclasses.replace` of one of these:

    clip_higher = replace(GRPO, surrogate=partial(clipped, low=0.2, high=0.28))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxreason.objectives.advantages import (
    group_centred,
    group_normalised,
    leave_one_out,
    no_baseline,
    suffix_sum,
    sum_then_normalise,
    whitened,
)
from jaxreason.objectives.aggregate import fixed_length, sequence_mean, token_mean, token_sum
from jaxreason.objectives.shaping import high_entropy
from jaxreason.objectives.surrogates import cispo, k1, k2, k3, ppo_clip, reinforce, sequence_clipped


@dataclass(frozen=True)
class Algorithm:
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
    """Where it enters: the loss; each completion's reward, the sum of k1 over its tokens; or each token's advantage,
    that sum from the token on."""
    combine: Callable = sum_then_normalise
    """(advantage, rewards [K P G], their weights) -> advantages [P G]."""
    length_reward: Callable | None = None
    """(rewards [P G], lengths [P G]) -> a further reward: `jaxreason.objectives.shaping`."""
    importance: Callable | None = None
    """(the trainer's, the sampler's log-probabilities) -> factors of the advantages [P G T]; the trainer's are then the
    old ones."""
    top_entropy: float = 1.0
    """Share of the batch's tokens, those of the highest entropy, that have an advantage."""
    entropy_weight: float = 0.0
    """Of a bonus for the entropy of every token."""
    drop_truncated: bool = False
    """Leave completions cut by the length limit out of the loss (DAPO's overlong filtering)."""
    drop_constant: bool = False
    """Leave groups of equal rewards out of the loss and its denominator; only their KL term has a gradient."""

    @property
    def needs_policy_scores(self) -> bool:
        """Whether it looks at the policy's own scores of the rollouts, beside what the sampler says."""
        return self.importance is not None or self.top_entropy < 1

    @property
    def has_dense_terms(self) -> bool:
        """Whether tokens without an advantage move the policy, too."""
        return bool((self.kl_weight and self.kl_in == "loss") or self.entropy_weight)


class TokenScores(NamedTuple):
    """What an algorithm may look at beside rewards, each [P G T]; None where it does not."""

    logps: Float[Array, "P G T"]
    """As sampled."""
    mask: Bool[Array, "P G T"]
    reference_logps: Float[Array, "P G T"] | None = None
    own_logps: Float[Array, "P G T"] | None = None
    own_entropy: Float[Array, "P G T"] | None = None


def advantages_of(
    algorithm: Algorithm, rewards: Float[Array, "K P G"], weights: Sequence[float], known: TokenScores
) -> Float[Array, "P G #T"]:
    """Everything of an algorithm that does not depend on the parameters, but for the tokens' weights."""
    several, mask = list(rewards), known.mask
    if algorithm.length_reward:
        several.append(algorithm.length_reward(sum_then_normalise(no_baseline, rewards, weights), mask.sum(axis=-1)))
    charge = None
    if algorithm.kl_weight and algorithm.kl_in != "loss":
        charge = jnp.where(mask, algorithm.kl_weight * k1(known.logps, known.reference_logps), 0.0)
        if algorithm.kl_in == "reward":
            several.append(-charge.sum(axis=-1))
    weights = [*weights, *[1.0] * (len(several) - len(weights))]
    advantages = algorithm.combine(algorithm.advantage, jnp.stack(several), weights)[..., None]
    if charge is not None and algorithm.kl_in == "returns":
        advantages = advantages - suffix_sum(charge)
    if algorithm.whiten:
        advantages = whitened(advantages, mask)
    if algorithm.importance:
        advantages = advantages * jnp.where(mask, algorithm.importance(known.own_logps, known.logps), 0.0)
    if algorithm.top_entropy < 1:
        advantages = advantages * high_entropy(known.own_entropy, mask, share=algorithm.top_entropy)
    return advantages


class PolicyLoss(NamedTuple):
    loss: Float[Array, ""]
    ppo_clip: Bool[Array, "P G T"]
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
    loss, lost = algorithm.surrogate(logps, old_logps, advantages, mask)
    kl = jnp.zeros_like(logps)
    if algorithm.kl_weight:
        kl = algorithm.kl(logps, reference_logps)
        loss += algorithm.kl_weight * kl if algorithm.kl_in == "loss" else 0.0
    if algorithm.entropy_weight:
        loss -= algorithm.entropy_weight * entropy
    return PolicyLoss(jnp.sum(jnp.where(mask, weights * loss, 0.0)), lost, kl)


GRPO = Algorithm(group_normalised, ppo_clip, sequence_mean)
"""Group Relative Policy Optimisation, DeepSeekMath (arXiv 2402.03300), without its KL term (published weight 0.04)."""

DR_GRPO = Algorithm(group_centred, ppo_clip, fixed_length)
"""GRPO "done right" (arXiv 2503.20783): no division by the deviation, none by the completion's own length."""

DAPO = Algorithm(
    group_normalised, partial(ppo_clip, low=0.2, high=0.28), token_mean, drop_truncated=True, drop_constant=True
)
"""DAPO (arXiv 2503.14476): clip-higher, mean over tokens, overlong filtering. Its dynamic sampling is `tries` of
`grpo_steps` (published: until the batch is full), its soft length penalty `shape=partial(soft_overlong, ...)`."""

GSPO = Algorithm(group_normalised, sequence_clipped, sequence_mean)
"""Group Sequence Policy Optimisation (arXiv 2507.18071): one ratio a completion. Its clipping range is narrow (3e-4,
4e-4), for four updates on each batch of rollouts; with a single one it is GRPO."""

CISPO = Algorithm(group_normalised, cispo, token_mean)
"""MiniMax-M1 (arXiv 2506.13585): clipped weights, no clipped gradients, no KL. Leaves out its dynamic sampling and
length penalty, which are DAPO's."""

RLOO = Algorithm(leave_one_out, reinforce, token_sum, kl_weight=0.05, kl_in="reward")
"""REINFORCE leave-one-out (arXiv 2402.14740): the others' mean is the baseline, a completion is one action. KL weight
as in TRL's trainer, whose ratios and clipping for further updates on a batch are left out."""

REINFORCE_PLUS_PLUS = Algorithm(no_baseline, ppo_clip, token_mean, whiten=True, kl_weight=0.01, kl_in="returns")
"""REINFORCE++ (arXiv 2501.03262): no comparison within groups; returns, less the KL to come, normalised over the batch.
KL weight and mean over tokens as in OpenRLHF."""

REINFORCE_PLUS_PLUS_BASELINE = Algorithm(group_centred, ppo_clip, token_mean, whiten=True, kl=k2, kl_weight=0.01)
"""The same with the group's mean as a baseline, and KL in the loss, by the estimator whose gradient is the KL's."""

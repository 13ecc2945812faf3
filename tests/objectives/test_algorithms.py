"""Every algorithm's loss and gradient, from rewards to one number, against loops over completions and tokens."""

from dataclasses import replace
from functools import partial
from math import exp, sqrt

import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.objectives import (
    ALGORITHMS,
    CISPO,
    DAPO,
    DR_GRPO,
    GRPO,
    GSPO,
    REINFORCE_PLUS_PLUS,
    REINFORCE_PLUS_PLUS_BASELINE,
    RLOO,
    resolve_algorithm,
)
from jaxreason.objectives.advantages import normalise_then_sum
from jaxreason.objectives.shaping import length_normalised, soft_overlong, truncated_importance
from jaxreason.objectives.surrogates import ppo_clip
from tests.objectives.small_batch import (
    ENTROPY,
    LENGTHS,
    LOGPS,
    MASK,
    OLD,
    OWN,
    REFERENCE,
    REWARDS,
    TOKENS,
    G,
    P,
    T,
    ours,
)


def compare(algorithm, token, weight, rewards=REWARDS, *, entropy=0.0):
    """`token(p, g, t) -> (loss, its derivative by logp)` and `weight(p, g, t)` add up to what the algorithm makes."""
    loss, slopes = 0.0, np.zeros(MASK.shape)
    for token_index in TOKENS:
        value, slope = token(*token_index)
        loss += weight(*token_index) * (value - entropy * ENTROPY[token_index])
        slopes[token_index] += weight(*token_index) * slope
    ours_loss, (ours_slopes, by_entropy) = ours(algorithm, rewards)
    np.testing.assert_allclose(ours_loss, loss, atol=1e-6)
    np.testing.assert_allclose(ours_slopes, slopes, atol=1e-6)
    np.testing.assert_allclose(by_entropy[0, 0, 0], -entropy * weight(0, 0, 0), atol=1e-6)


def normalised(p, g):
    return (REWARDS[p, g] - REWARDS[p].mean()) / (REWARDS[p].std(ddof=1) + 1e-4)


def centred(p, g):
    return REWARDS[p, g] - sum(REWARDS[p]) / G


def ratio(p, g, t):
    return exp(LOGPS[p, g, t] - OLD[p, g, t])


def ppo(advantage, r, low, high):
    if (advantage > 0 and r > 1 + high) or (advantage < 0 and r < 1 - low):
        return -(1 + high if advantage > 0 else 1 - low) * advantage, 0.0
    return -r * advantage, -r * advantage


def of_sequences(p, g, t):
    return 1 / LENGTHS[p, g] / (P * G)


def of_tokens(p, g, t):
    return 1 / LENGTHS.sum()


def test_the_example_is_clipped_on_both_sides():
    sides = {(normalised(p, g) > 0, np.sign(round(ratio(p, g, t) - 1, 1))) for p, g, t in TOKENS}
    assert {(True, 1.0), (True, -1.0), (False, 1.0), (False, -1.0)} <= sides
    assert sum(ppo(normalised(p, g), ratio(p, g, t), 0.2, 0.28)[1] == 0 for p, g, t in TOKENS) >= 3


def test_grpo():
    compare(GRPO, lambda p, g, t: ppo(normalised(p, g), ratio(p, g, t), 0.2, 0.2), of_sequences)


def test_grpo_with_k3_and_an_entropy_bonus():
    def token(p, g, t):
        loss, slope = ppo(normalised(p, g), ratio(p, g, t), 0.2, 0.2)
        away = REFERENCE[p, g, t] - LOGPS[p, g, t]
        return loss + 0.3 * (exp(away) - away - 1), slope + 0.3 * (1 - exp(away))

    compare(replace(GRPO, kl_weight=0.3, entropy_weight=0.2), token, of_sequences, entropy=0.2)


def test_dr_grpo():
    compare(DR_GRPO, lambda p, g, t: ppo(centred(p, g), ratio(p, g, t), 0.2, 0.2), lambda p, g, t: 1 / (P * G * T))


def test_dapo():
    # of 5 tokens the last one is the buffer: completions of 5 tokens lose 1
    shaped = REWARDS + np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    scaled = (shaped - shaped.mean(axis=1, keepdims=True)) / (shaped.std(axis=1, ddof=1, keepdims=True) + 1e-4)
    compare(DAPO, lambda p, g, t: ppo(scaled[p, g], ratio(p, g, t), 0.2, 0.28), of_tokens)


def test_gspo():
    def token(p, g, t):
        length = LENGTHS[p, g]
        s = exp(sum(LOGPS[p, g, u] - OLD[p, g, u] for u in range(length)) / length)
        return ppo(normalised(p, g), s, 3e-4, 4e-4)

    compare(GSPO, token, of_sequences)


def test_cispo():
    def token(p, g, t):
        weight = min(ratio(p, g, t), 1.2)
        return -weight * normalised(p, g) * LOGPS[p, g, t], -weight * normalised(p, g)

    compare(replace(CISPO, surrogate=partial(CISPO.surrogate, max_ratio=1.2)), token, of_tokens)


def charge(p, g, t):
    return OLD[p, g, t] - REFERENCE[p, g, t]


def test_rloo():
    def token(p, g, t):
        paid = [REWARDS[p, i] - 0.05 * sum(charge(p, i, u) for u in range(LENGTHS[p, i])) for i in range(G)]
        advantage = paid[g] - (sum(paid) - paid[g]) / (G - 1)
        return -advantage * LOGPS[p, g, t], -advantage

    compare(RLOO, token, lambda p, g, t: 1 / (P * G))


def over_the_batch(values):
    """(value - mean) / std over all tokens, by token."""
    mean = sum(values.values()) / len(values)
    deviation = sqrt(sum((value - mean) ** 2 for value in values.values()) / (len(values) - 1))
    return {token_index: (value - mean) / deviation for token_index, value in values.items()}


def test_reinforce_plus_plus():
    suffix_sum = {(p, g, t): sum(charge(p, g, u) for u in range(t, LENGTHS[p, g])) for p, g, t in TOKENS}
    advantages = over_the_batch({(p, g, t): REWARDS[p, g] - 0.01 * suffix_sum[p, g, t] for p, g, t in TOKENS})
    compare(REINFORCE_PLUS_PLUS, lambda p, g, t: ppo(advantages[p, g, t], ratio(p, g, t), 0.2, 0.2), of_tokens)


def test_reinforce_plus_plus_with_a_baseline():
    advantages = over_the_batch({(p, g, t): centred(p, g) for p, g, t in TOKENS})

    def token(p, g, t):
        loss, slope = ppo(advantages[p, g, t], ratio(p, g, t), 0.2, 0.2)
        away = LOGPS[p, g, t] - REFERENCE[p, g, t]
        return loss + 0.01 * away**2 / 2, slope + 0.01 * away

    compare(REINFORCE_PLUS_PLUS_BASELINE, token, of_tokens)


def test_dual_clip():
    def token(p, g, t):
        advantage, r = normalised(p, g), ratio(p, g, t)
        if advantage < 0 and r > 1.3:
            return -1.3 * advantage, 0.0
        return ppo(advantage, r, 0.2, 0.2)

    assert any(normalised(p, g) < 0 and ratio(p, g, t) > 1.3 for p, g, t in TOKENS)
    compare(replace(GRPO, surrogate=partial(ppo_clip, dual=1.3)), token, of_sequences)


def test_truncated_importance():
    def token(p, g, t):
        weight = min(exp(OWN[p, g, t] - OLD[p, g, t]), 2.0)
        return ppo(weight * normalised(p, g), exp(LOGPS[p, g, t] - OWN[p, g, t]), 0.2, 0.2)

    assert any(exp(OWN[token_index] - OLD[token_index]) > 2 for token_index in TOKENS)
    compare(replace(GRPO, importance=truncated_importance), token, of_sequences)


def test_only_tokens_of_high_entropy():
    top = sorted(TOKENS, key=lambda token_index: -ENTROPY[token_index])[:8]  # two fifths of twenty

    def token(p, g, t):
        return ppo(normalised(p, g), ratio(p, g, t), 0.2, 0.2) if (p, g, t) in top else (0.0, 0.0)

    compare(replace(GRPO, top_entropy=0.4), token, of_sequences)


def test_rewards_that_are_normalised_each_for_itself():
    second = np.array([[10.0, 30.0, 20.0], [5.0, 5.0, 5.0]])
    own = [(second[p] - second[p].mean()) / (second[p].std(ddof=1) + 1e-4) for p in range(P)]
    total = {(p, g): normalised(p, g) + own[p][g] for p in range(P) for g in range(G)}
    mean = sum(total.values()) / 6
    deviation = sqrt(sum((value - mean) ** 2 for value in total.values()) / 5)

    def token(p, g, t):
        return ppo((total[p, g] - mean) / (deviation + 1e-4), ratio(p, g, t), 0.2, 0.2)

    compare(replace(GRPO, combine=normalise_then_sum), token, of_sequences, np.stack([REWARDS, second], axis=-1))


@pytest.mark.parametrize(
    ("length_reward", "expected"),
    [
        (partial(soft_overlong, buffer=2), [[-1.0, 0.0, 0.0], [0.0, -0.5, -1.0]]),
        # lengths 5 2 3 of rewards 1 0 0: places -1/2, 1/2, 1/6, of which the wrong ones keep what is negative
        (length_normalised, [[-0.5, 0.0, 0.0], [0.5, -0.25, -0.5]]),
    ],
)
def test_rewards_of_length_by_hand(length_reward, expected):
    np.testing.assert_allclose(length_reward(jnp.asarray(REWARDS), jnp.asarray(LENGTHS), 5), expected, atol=1e-6)
    shaped = replace(DR_GRPO, length_reward=length_reward)
    total = REWARDS + np.array(expected)

    def token(p, g, t):
        return ppo(total[p, g] - total[p].mean(), ratio(p, g, t), 0.2, 0.2)

    compare(shaped, token, lambda p, g, t: 1 / (P * G * T))


PUBLISHED = {  # KL weight, where it enters, batches sampled at most, length reward
    "grpo": (0.0, "loss", 1, False),
    "dr_grpo": (0.0, "loss", 1, False),
    "dapo": (0.0, "loss", 10, True),
    "gspo": (0.0, "loss", 1, False),
    "cispo": (0.0, "loss", 1, False),
    "rloo": (0.05, "reward", 1, False),
    "reinforce++": (0.01, "returns", 1, False),
    "reinforce++-baseline": (0.01, "loss", 1, False),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_name_is_the_published_recipe_and_a_flag_changes_that_field_alone(name):
    algorithm = resolve_algorithm(name)
    assert algorithm == ALGORITHMS[name]
    recipe = algorithm.kl_weight, algorithm.kl_in, algorithm.max_gen_batches, algorithm.length_reward is not None
    assert recipe == PUBLISHED[name]
    assert resolve_algorithm(name, kl_weight=0.3) == replace(algorithm, kl_weight=0.3)
    assert resolve_algorithm(name, overlong_buffer=0) == replace(algorithm, length_reward=None)

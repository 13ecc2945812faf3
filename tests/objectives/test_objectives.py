"""Losses by hand, and the estimators of KL against the enumerated truth."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.objectives.advantages import (
    group_centred,
    group_normalised,
    has_reward_variance,
    leave_one_out,
    no_baseline,
    normalise_then_sum,
    whitened,
)
from jaxreason.objectives.aggregate import fixed_length, sequence_mean, token_mean
from jaxreason.objectives.algorithms import Algorithm, TokenScores, advantages_of, policy_loss
from jaxreason.objectives.kl import k1, k2, k3
from jaxreason.objectives.surrogates import ppo_clip, reinforce


def test_advantages_by_hand():
    rewards = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    # mean 1/4, deviations 3/4 and -1/4, variance (9 + 3) / 16 / 3 = 1/4, so the standard deviation is 1/2
    np.testing.assert_allclose(group_normalised(rewards)[0], np.array([0.75, -0.25, -0.25, -0.25]) / 0.5001, rtol=1e-6)
    np.testing.assert_array_equal(group_normalised(rewards)[1], 0.0)
    np.testing.assert_allclose(group_centred(rewards)[0], [0.75, -0.25, -0.25, -0.25])
    np.testing.assert_array_equal(has_reward_variance(rewards), [True, False])


def test_a_group_of_one_has_no_advantage():
    np.testing.assert_array_equal(group_normalised(jnp.array([[3.0]])), [[0.0]])
    alone = normalise_then_sum(group_normalised, jnp.array([[[3.0, 1.0]]]), (1.0, 2.0))
    np.testing.assert_array_equal(alone, [[0.0]])


@pytest.mark.parametrize("reward", [-57.3, 1000.1, 0.1, 1e30, 1e-30])
@pytest.mark.parametrize("size", [2, 5, 8, 13])
def test_equal_rewards_have_no_advantage_at_any_scale(reward, size):
    rewards, mask = jnp.full((3, size), reward), jnp.ones((3, size, 7), bool)
    for advantage in (group_centred, group_normalised, leave_one_out):
        np.testing.assert_array_equal(advantage(rewards), 0.0)
    np.testing.assert_array_equal(whitened(rewards[..., None], mask), 0.0)
    both = jnp.stack([rewards, 2 * rewards], axis=-1)
    np.testing.assert_array_equal(normalise_then_sum(group_normalised, both, (1.0, 0.3)), 0.0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside: -r A, and d/dlogp of it is itself
        (1.5, 2.0, -2.6, 0.0),  # already raised enough: clipped at 1.3, no gradient
        (0.5, 2.0, -1.0, -1.0),  # a good token that fell: pulled back
        (1.5, -2.0, 3.0, 3.0),  # a bad token that rose: pushed down, never clipped
        (0.5, -2.0, 1.6, 0.0),  # already lowered enough: clipped at 0.8
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, slope):
    def value(logp):
        one, here = jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1), bool)
        return ppo_clip(logp.reshape(1, 1, 1), 0 * one, advantage * one, here, low=0.2, high=0.3)

    logp = jnp.log(jnp.array(ratio))
    np.testing.assert_allclose(value(logp).loss[0, 0, 0], loss, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: value(x).loss.sum())(logp), slope, rtol=1e-6)
    assert bool(value(logp).clip_mask[0, 0, 0]) == (slope == 0)


def test_an_absurd_ratio_stays_finite():
    one = jnp.ones((1, 1, 1))
    loss = ppo_clip(0 * one, -1e4 * one, -one, one > 0).loss
    np.testing.assert_allclose(loss, np.exp(20), rtol=1e-5)


def test_aggregations_by_hand():
    mask = jnp.array([[[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 1, 1, 0], [0, 0, 0, 0]]], bool)  # 2, 1, 3 and no tokens
    np.testing.assert_allclose(sequence_mean(mask)[:, :, 0], [[1 / 6, 1 / 3], [1 / 9, 0]], rtol=1e-6)
    np.testing.assert_allclose(token_mean(mask)[0, 0], [1 / 6, 1 / 6, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(fixed_length(mask)[0, 0], [1 / 12, 1 / 12, 0, 0], rtol=1e-6)
    for aggregate in (sequence_mean, token_mean):
        np.testing.assert_allclose(aggregate(mask).sum(), 1.0, rtol=1e-6)
    for aggregate in (sequence_mean, token_mean, fixed_length):
        np.testing.assert_array_equal(aggregate(jnp.zeros((1, 2, 3), bool)), 0.0)
        np.testing.assert_array_equal(aggregate(mask)[~mask], 0.0)


LOGITS, REFERENCE = jnp.array([0.3, -0.5, 1.2]), jnp.log(jnp.array([0.5, 0.3, 0.2]))


def enumerated(estimator, logits):
    """Expectation over the policy's own samples: value, and gradient with the samples held fixed."""
    sampler = jax.lax.stop_gradient(jax.nn.softmax(logits))
    return jnp.sum(sampler * estimator(jax.nn.log_softmax(logits), REFERENCE))


def forward_kl(logits):
    return jnp.sum(jnp.exp(REFERENCE) * (REFERENCE - jax.nn.log_softmax(logits)))


def reverse_kl(logits):
    return jnp.sum(jax.nn.softmax(logits) * (jax.nn.log_softmax(logits) - REFERENCE))


def test_values_of_the_kl_estimators():
    for estimator in (k1, k3):
        np.testing.assert_allclose(enumerated(estimator, LOGITS), reverse_kl(LOGITS), rtol=1e-5)
    assert float(k3(jnp.array([-1.0, -2.0]), jnp.array([-3.0, -1.5])).min()) > 0
    np.testing.assert_allclose(k2(jnp.array(-1.0), jnp.array(-3.0)), 2.0)


@pytest.mark.parametrize(
    "algorithm",
    [
        Algorithm(no_baseline, reinforce, token_mean, kl=k2, kl_weight=1.0),
        Algorithm(no_baseline, reinforce, token_mean, kl_weight=1.0, kl_in="reward"),
        Algorithm(no_baseline, reinforce, token_mean, kl_weight=1.0, kl_in="returns"),
    ],
    ids=["loss", "reward", "returns"],
)
def test_a_kl_pulls_like_the_true_one_in_expectation(algorithm):
    """Single-token completions without any other reward: the gradient of the mean over samples is that of the KL."""
    count = 40_000
    tokens = jax.random.categorical(jax.random.key(0), LOGITS, shape=(1, count, 1))
    mask, reference = jnp.ones(tokens.shape, bool), REFERENCE[tokens]
    old = jax.nn.log_softmax(LOGITS)[tokens]
    advantages = advantages_of(algorithm, jnp.zeros((1, count, 1)), (1.0,), TokenScores(old, mask, reference))

    def loss(logits, weights):
        arrays = {"old_logps": old, "reference_logps": reference, "advantages": advantages, "mask": mask}
        logps = jax.nn.log_softmax(logits)[tokens]
        return policy_loss(algorithm, logps, jnp.zeros_like(logps), weights=weights, **arrays).loss

    of_each = jnp.stack(  # the gradient of a sample depends on its token alone
        [jax.grad(loss)(LOGITS, (tokens == v) / jnp.maximum((tokens == v).sum(), 1)) for v in range(3)]
    )
    drawn = of_each[tokens[0, :, 0]]
    error = drawn.std(axis=0) / np.sqrt(count)
    away = jax.grad(loss)(LOGITS, algorithm.aggregate(mask)) - jax.grad(reverse_kl)(LOGITS)
    assert (jnp.abs(away) < 3 * error).all()
    assert float(jnp.abs(jax.grad(reverse_kl)(LOGITS)).max()) > 20 * float(error.max())


def test_gradients_of_the_kl_estimators_are_what_their_docstrings_say():
    gradient = jax.grad(partial(enumerated, k2))(LOGITS)
    np.testing.assert_allclose(gradient, jax.grad(reverse_kl)(LOGITS), atol=1e-6)
    np.testing.assert_allclose(jax.grad(partial(enumerated, k3))(LOGITS), jax.grad(forward_kl)(LOGITS), atol=1e-6)
    np.testing.assert_allclose(jax.grad(partial(enumerated, k1))(LOGITS), np.zeros(3), atol=1e-6)

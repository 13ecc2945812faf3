"""The gradient flow against automatic differentiation, closed forms and Euler steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.analysis.theory import (
    fit_flow,
    flow,
    flow_derivative,
    optimal_policy,
    regime,
    self_certainty_rewards,
    transition_time,
    two_pattern_share,
    two_pattern_time,
)
from jaxreason.errors import InputError

FAST = [0.3, 0.35, 0.35], [0.9, 0.2, 0.3]
ENTANGLED = [0.05, 0.70, 0.25], [0.9, 0.7, 0.1]


def test_the_flow_is_the_gradient_of_reward_minus_kl():
    reference, rewards, theta = np.array([0.2, 0.5, 0.3]), np.array([0.9, 0.3, 0.5]), np.array([0.3, -0.4, 1.0])

    def objective(theta):
        shares = jax.nn.softmax(theta)
        return shares @ rewards - 0.3 * jnp.sum(shares * jnp.log(shares / reference))

    np.testing.assert_allclose(flow_derivative(theta, rewards, reference, 0.3), jax.grad(objective)(theta), atol=1e-6)


@pytest.mark.parametrize("success", [[0.9, 0.4], [0.2, 0.3]])
def test_two_patterns_in_closed_form(success):
    shares, best = [0.1, 0.9], int(np.argmax(success))
    for share in (0.95, 0.99):
        time = two_pattern_time(shares, success, share)
        assert flow(shares, success, [time]).shares[0, best] == pytest.approx(share, abs=1e-3)
        assert two_pattern_share(shares, success, time) == pytest.approx(share, abs=1e-6)
        assert transition_time(shares, success, share=share) == pytest.approx(time, rel=1e-3)


def test_the_fast_regime_is_linear_in_one_over_epsilon():
    assert regime(*FAST)[:3] == ("fast", 0, [])
    epsilons = np.array([0.02, 0.01, 0.005, 0.0025])
    times = np.array([transition_time(*FAST, share=1 - e) for e in epsilons])
    products = times * epsilons
    assert np.ptp(products[1:]) < 0.1 * products[-1]
    shares = flow(*FAST, np.linspace(0, 100, 50)).shares[:, 0]
    assert (np.diff(shares) > 0).all()


def test_in_the_entangled_regime_the_rival_gains_first():
    start = regime(*ENTANGLED)
    assert start[:3] == ("entangled", 0, [1]) and start.gamma == pytest.approx(6)
    path = flow(*ENTANGLED, np.linspace(0, 400, 401))
    best, rival = path.shares[:, 0], path.shares[:, 1]
    assert best.min() < 0.031 and rival.max() > 0.95 and best[-1] > 0.95
    # an independent integration by Euler steps
    theta = np.log(np.array(ENTANGLED[0]))
    for _ in range(40_000):
        shares = np.exp(theta) / np.exp(theta).sum()
        theta = theta + 0.01 * shares * (np.array(ENTANGLED[1]) - shares @ np.array(ENTANGLED[1]))
    np.testing.assert_allclose(shares, path.shares[-1], atol=1e-3)


def test_the_optimal_policy_is_the_limit_of_the_flow():
    reference, rewards, beta = [0.5, 0.3, 0.2], [0.2, 0.9, 0.6], 0.5
    limit = flow(reference, rewards, [1e4], beta=beta).shares[0]
    np.testing.assert_allclose(optimal_policy(reference, rewards, beta), limit, atol=1e-3)
    weights = np.array([0.5 * np.exp(0.4), 0.3 * np.exp(1.8), 0.2 * np.exp(1.2)])
    np.testing.assert_allclose(limit, weights / weights.sum(), atol=1e-3)


def test_self_certainty_rewards_confidence_correct_or_not():
    rewards = self_certainty_rewards(np.array([[0.9, 0.1], [0.05, 0.95], [0.5, 0.5]]))
    np.testing.assert_allclose(rewards, -0.5 * np.log([0.09, 0.0475, 0.25]))
    assert rewards.argmax() == 1  # the most confident pattern, whose correct answer is the first


def test_the_fit_recovers_the_speed():
    steps = np.arange(0, 100, 10)
    run = flow(*ENTANGLED, 3.5 * steps)
    fit = fit_flow(steps, run.shares, ENTANGLED[1])
    assert fit.speed == pytest.approx(3.5, rel=1e-3) and fit.error < 1e-3


@pytest.mark.parametrize(
    ("shares", "success", "message"),
    [
        ([0.5, 0.5], [0.5], "2 shares and 1 success rates"),
        ([0.5, 0.6], [0.5, 0.5], "sum to 1"),
        ([1.0, 0.0], [0.5, 0.5], "not positive"),
    ],
)
def test_shares_must_be_a_distribution(shares, success, message):
    with pytest.raises(InputError, match=message):
        regime(shares, success)

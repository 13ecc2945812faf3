"""Intrinsic and group rewards, by hand; rewards by name."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models.scoring import Scores
from jaxreason.rewards import grade
from jaxreason.rewards.intrinsic import (
    ClusterReward,
    MajorityReward,
    label_agreement,
    self_certainty,
    token_entropy,
    trajectory_entropy,
)
from jaxreason.rewards.registry import REWARDS, VERIFIERS
from jaxreason.tasks import Problem

PROBLEM = Problem(question="?", answer="7", solution="", index=0)
TEXTS = ["#### 8", "so 8.0", "x = 8", "#### 7", "none", "\\boxed{9}"]


def test_scores_by_hand():
    mask = jnp.array([[[True, True, False], [True, False, False]]])
    values = jnp.where(mask, jnp.array([[[1.0, 3.0, 9.0], [5.0, 9.0, 9.0]]]), jnp.nan)
    scores = Scores(logps=-values, entropy=2 * values, certainty=values)
    np.testing.assert_allclose(self_certainty(scores, mask), [[2, 5]])
    np.testing.assert_allclose(token_entropy(scores, mask), [[-4, -10]])
    np.testing.assert_allclose(trajectory_entropy(scores, mask), [[-4, -5]])


def test_the_majority_answer_is_rewarded():
    rewards = grade([TEXTS], [PROBLEM], MajorityReward())
    np.testing.assert_array_equal(rewards, [[1, 1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(grade([["none", "so"]], [PROBLEM], MajorityReward()), [[0, 0]])


def test_the_share_of_equal_answers_is_rewarded_unless_all_differ():
    np.testing.assert_allclose(
        grade([TEXTS], [PROBLEM], ClusterReward()), [[0.5, 0.5, 0.5, 1 / 6, 0, 1 / 6]], rtol=1e-6
    )
    np.testing.assert_array_equal(grade([["#### 1", "#### 2", "#### 3"]], [PROBLEM], ClusterReward()), [[0, 0, 0]])


def test_quality_of_majority_labels():
    rewards = [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    truth = [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]  # the first label is correct, the second is not
    rows = [
        {"index": p, "reward": reward, "lenient": lenient}
        for p, group in enumerate(zip(rewards, truth, strict=True))
        for reward, lenient in zip(*group, strict=True)
    ]
    assert label_agreement(rows) == {"label_accuracy": 0.5, "reward_accuracy": pytest.approx(2 / 6)}


def test_rewards_by_name():
    texts = ["#### 7", "so 7", "no", "\\boxed{14/2}"]
    expected = {"lenient": [1, 1, 0, 1], "majority": [1, 1, 0, 1]}
    expected |= {"strict": [1, 0, 0, 1], "symbolic": [1, 1, 0, 1], "clusters": [0.75, 0.75, 0, 0.75]}
    intrinsic = {"self-certainty": self_certainty, "token-entropy": token_entropy}
    intrinsic["trajectory-entropy"] = trajectory_entropy
    assert set(VERIFIERS) == {"strict", "lenient", "symbolic"} and set(REWARDS) == {*expected, *intrinsic}
    for name, values in expected.items():
        np.testing.assert_array_equal(grade([texts], [PROBLEM], REWARDS[name]()), [values])
    for name, function in intrinsic.items():
        assert REWARDS[name]().of_scores is function

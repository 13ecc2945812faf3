"""Rewards that know no answer, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models.scoring import Scores
from jaxreason.rewards import grade
from jaxreason.rewards.intrinsic import (
    ClusterReward,
    MajorityReward,
    agreement,
    self_certainty,
    token_entropy,
    trajectory_entropy,
)
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


def test_the_majority_is_right_whatever_the_truth():
    rewards = grade([TEXTS], [PROBLEM], MajorityReward())
    np.testing.assert_array_equal(rewards, [[1, 1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(grade([["none", "so"]], [PROBLEM], MajorityReward()), [[0, 0]])


def test_equal_answers_earn_their_share_unless_all_differ():
    np.testing.assert_allclose(
        grade([TEXTS], [PROBLEM], ClusterReward()), [[0.5, 0.5, 0.5, 1 / 6, 0, 1 / 6]], rtol=1e-6
    )
    np.testing.assert_array_equal(grade([["#### 1", "#### 2", "#### 3"]], [PROBLEM], ClusterReward()), [[0, 0, 0]])


def test_what_labels_are_worth():
    rewards, truth = (
        [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]],
        [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]],
    )  # a right label, then a wrong one
    found = agreement(rewards, truth)
    assert found == {"label_accuracy": 0.5, "reward_accuracy": pytest.approx(2 / 6)}

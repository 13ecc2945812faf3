"""What a step learns from, with a sampler that rolls dice: dynamic sampling, replay, several and internal rewards."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models.scoring import Scores
from jaxreason.objectives import DAPO, GRPO
from jaxreason.rewards.intrinsic import SELF_CERTAINTY
from jaxreason.sampling import ProblemSampler
from jaxreason.tasks import Problem
from jaxreason.training import TrainState, collect_groups, make_batch, rollout_metrics, sample_rows
from jaxreason.training.collect import Replay
from jaxreason.training.updates import count_batch
from jaxreason.types import Rollouts
from jaxreason.weights import load_model

_, _, TOKENIZER = load_model("tiny")
PROBLEMS = [Problem(question=f"{i}", answer="", solution="", index=i) for i in range(40)]
GROUPS, LENGTH = 4, 3
FIRST = min(set(range(10, 20)) - set(TOKENIZER.stop_ids))


class Dice:
    """Completions whose length follows from their key alone."""

    def stream(self, params, prompts, *, keys):
        count = len(prompts.tokens)
        lengths = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 1, LENGTH + 1)))(keys)
        mask = np.arange(LENGTH) < np.asarray(lengths)[..., None]
        tokens = np.full(mask.shape, FIRST)
        yield np.arange(count), Rollouts(prompts, tokens, mask, -1.0 * mask, np.ones(mask.shape[:2], bool))


SAMPLER = ProblemSampler(lambda problem: [problem.index + 3], Dice(), TOKENIZER)


def steps_with(reward, *, seed=0, steps=2, prompts=4, state=None, algorithm=GRPO, max_gen_batches=1, **collecting):
    """The batches of some steps, their metrics, and the groups with the state after each."""
    zero = jnp.int32(0)
    state = state or TrainState({}, (), zero, zero, jax.random.key(seed))
    weights = tuple(reward.values()) if isinstance(reward, dict) else ()
    batches, metrics, results = [], [], []
    while int(state.step) < steps:
        groups = collect_groups(
            state,
            PROBLEMS,
            SAMPLER,
            reward,
            prompts_per_step=prompts,
            group_size=GROUPS,
            max_gen_batches=max_gen_batches,
            **collecting,
        )
        learned, consumed = groups.learned, len(groups.problems)
        batches.append(
            make_batch(learned.rollouts, learned.rewards, algorithm, reward_weights=weights, consumed=consumed)
        )
        state = count_batch(state, batches[-1].consumed)
        metrics.append(rollout_metrics(groups))
        results.append((groups, state))
    return batches, metrics, results


def few(text, problem):
    """Only problems whose number four divides have a signal."""
    return float(len(text) % 2) if problem.index % 4 == 0 else 1.0


def problem_indices(batch):
    return (np.asarray(batch.rollouts.prompts.tokens)[:, 0] - 3).tolist()


def test_dynamic_sampling_goes_on_until_enough_groups_differ():
    batches, metrics, results = steps_with(few, steps=1, prompts=2, max_gen_batches=20)
    assert len(problem_indices(batches[0])) == 2 and all(index % 4 == 0 for index in problem_indices(batches[0]))
    assert 1 < metrics[0]["gen_batches"] < 20 and metrics[0]["groups_learned"] == 2
    assert len(sample_rows(results[0][0])) == metrics[0]["gen_batches"] * 2 * GROUPS
    assert int(results[0][1].position) == metrics[0]["gen_batches"] * 2
    advantages = np.asarray(batches[0].advantages)
    assert (np.abs(advantages).max(axis=(1, 2)) > 0).all()


def test_dynamic_sampling_ends_within_its_bound_where_nothing_differs():
    algorithm = replace(DAPO, length_reward=None)
    batches, metrics, _ = steps_with(lambda text, problem: 1.0, steps=1, max_gen_batches=3, algorithm=algorithm)
    assert metrics[0]["gen_batches"] == 3 and metrics[0]["groups_learned"] == 0
    np.testing.assert_array_equal(batches[0].advantages, 0)
    np.testing.assert_array_equal(batches[0].weights, 0)


def test_dynamic_sampling_learns_from_as_many_as_there_are():
    batches, metrics, _ = steps_with(
        lambda text, problem: few(text, problem) if problem.index < 8 else 0.0, max_gen_batches=4
    )
    for batch, row in zip(batches, metrics, strict=True):
        assert (row["gen_batches"] == 4 and set(problem_indices(batch)) <= {0, 4}) or row["groups_learned"] == 0
        assert row["groups_learned"] in {0, len(problem_indices(batch))}


def test_replay_takes_the_newest_earlier_groups_and_says_how_old_they_are(tmp_path):
    batches, metrics, results = steps_with(few, steps=6, prompts=5, replay=Replay(tmp_path, age=2))
    fresh, with_defaults = steps_with(few, steps=6, prompts=5)[0], 0
    own = [
        {i for i, a in zip(problem_indices(b), np.asarray(b.advantages), strict=True) if np.abs(a).max()} for b in fresh
    ]
    for step, (batch, row) in enumerate(zip(batches, metrics, strict=True)):
        earlier = set().union(*own[max(0, step - 2) : step])
        if row["groups_learned"]:
            assert own[step] <= set(problem_indices(batch)) <= own[step] | earlier
            assert len(problem_indices(batch)) == min(5, len(own[step]) + sum(map(len, own[max(0, step - 2) : step])))
        with_defaults += row["staleness_mean"] > 0
        assert row["staleness_mean"] <= 2
    assert with_defaults
    # gone on with from the middle, it learns the same
    again, _, _ = steps_with(few, steps=6, prompts=5, replay=Replay(tmp_path, age=2), state=results[2][1])
    for one, other in zip(again, batches[3:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_several_rewards_with_their_weights():
    def length(text, problem):
        return float(len(text))

    rewards = {few: 1.0, length: -0.5}
    _, metrics, results = steps_with(rewards, steps=1)
    for sample in sample_rows(results[0][0]):
        problem = PROBLEMS[sample["index"]]
        text = sample["completion"]
        assert sample["reward"] == pytest.approx(few(text, problem) - 0.5 * len(text))
    mean = np.mean([sample["reward"] for sample in sample_rows(results[0][0])])
    assert metrics[0]["reward_mean"] == pytest.approx(mean, abs=1e-6)


def test_internal_rewards_are_of_the_policys_own_scores():
    def score(params, prompts, tokens, mask):
        certainty = jnp.where(mask, jnp.arange(1.0, LENGTH + 1), 0.0)  # 1, 2, 3: means 1, 1.5, 2 by length
        return Scores(-1.0 * mask, 0.0 * mask, certainty)

    _, _, results = steps_with(SELF_CERTAINTY, steps=1, score=score)
    for sample in sample_rows(results[0][0]):
        assert sample["reward"] == pytest.approx((sample["tokens"] + 1) / 2)


def test_policy_scores_are_asked_for_before_anything_is_sampled():
    with pytest.raises(ValueError, match="own scores: give `score`"):
        steps_with(SELF_CERTAINTY)
    with pytest.raises(ValueError, match="own scores: give policy_scores"):
        steps_with(few, algorithm=replace(GRPO, top_entropy=0.2))

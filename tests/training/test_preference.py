"""Learning from pairs: DPO's start and direction, what is ignored, a reward model that learns an order."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxreason.data import PreferencePair
from jaxreason.models.reward_head import add_reward_head, score_rewards
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.preference import ipo, simpo
from jaxreason.training.preference import (
    batch_pairs,
    best_worst_pairs,
    completion_logps,
    next_pairs,
    pair_loss,
    reward_loss,
    score_pairs,
)
from jaxreason.training.state import init_state, make_optimizer
from jaxreason.training.updates import supervised_update
from jaxreason.types import Prompts, Rollouts
from tests.models.families import TINY, tiny_params

rng = np.random.default_rng(0)
CFG = replace(TINY["llama"], layers=1)
MODEL, PARAMS = Transformer(CFG), tiny_params(CFG, seed=2)


def test_dpo_prefers_what_was_right_and_ignores_groups_that_agree():
    P, G, S, T = 3, 4, 2, 5
    prompts = Prompts(jnp.array(rng.integers(0, CFG.vocab, (P, S))), jnp.ones((P, S), bool))
    tokens = jnp.array(rng.integers(0, CFG.vocab, (P, G, T)))
    mask = np.arange(T) < rng.integers(1, T + 1, (P, G))[..., None]
    rollouts = Rollouts(prompts, tokens, mask, jnp.zeros((P, G, T)), jnp.zeros((P, G), bool))
    rewards = jnp.array([[0, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 1]], jnp.float32)
    score = jax.jit(partial(completion_logps, model=MODEL))
    reference = score(PARAMS, rollouts)
    pairs = best_worst_pairs(rollouts, rewards, reference)
    np.testing.assert_array_equal(pairs.completions.tokens[0], tokens[0, [2, 0]])
    np.testing.assert_array_equal(pairs.completions.tokens[2], tokens[2, [0, 1]])
    np.testing.assert_allclose(pairs.weights, [0.5, 0.0, 0.5])
    optimizer = make_optimizer(1e-2)
    update = jax.jit(partial(supervised_update, loss=partial(pair_loss, model=MODEL), optimizer=optimizer))
    state, metrics = update(init_state(PARAMS, optimizer, seed=0), pairs)
    np.testing.assert_allclose(metrics["loss"], np.log(2.0), rtol=1e-4)  # policy and reference are still the same
    after, before = score(state.params, rollouts), reference
    gained = (after[0, 2] - before[0, 2]) - (after[0, 0] - before[0, 0])
    assert gained > 0 and (after[2, 0] - before[2, 0]) > (after[2, 1] - before[2, 1])
    nobody = best_worst_pairs(rollouts, jnp.zeros((P, G)), reference)
    still, _ = update(init_state(PARAMS, optimizer, seed=0), nobody)
    for a, b in zip(jax.tree.leaves(still.params), jax.tree.leaves(PARAMS), strict=True):
        np.testing.assert_array_equal(a, b)


def some_pairs(count: int) -> list[PreferencePair]:
    """Of different lengths; the chosen side begins with token 5."""
    texts = [[rng.integers(6, CFG.vocab, rng.integers(1, 6)).tolist() for _ in range(3)] for _ in range(count)]
    return [PreferencePair(prompt, [5, *chosen], rejected) for prompt, chosen, rejected in texts]


def test_dpo_starts_at_ln_2_exactly():
    pairs = some_pairs(5)
    score = jax.jit(partial(completion_logps, model=MODEL))
    reference = score_pairs(PARAMS, pairs, pairs_per_step=5, score=score)
    batch = batch_pairs(pairs, reference)
    _, (sums, _) = jax.jit(partial(pair_loss, model=MODEL))(PARAMS, batch)
    assert float(sums["margin"]) == 0.0
    np.testing.assert_array_equal(sums["loss"], np.float32(np.log(2.0)))


def test_the_other_preferences_move_apart_what_they_compare():
    pairs, optimizer = some_pairs(6), make_optimizer(1e-2)
    score = jax.jit(partial(completion_logps, model=MODEL))
    reference = score_pairs(PARAMS, pairs, pairs_per_step=6, score=score)
    for preference in (ipo, simpo):
        loss = partial(pair_loss, model=MODEL, preference=preference)
        update = jax.jit(partial(supervised_update, loss=loss, optimizer=optimizer))
        state, steps = init_state(PARAMS, optimizer, seed=0), []
        for _ in range(4):
            state, metrics = update(state, next_pairs(state, pairs, 6, reference))
            steps.append(metrics)
        assert steps[-1]["margin"] > steps[0]["margin"] and steps[-1]["loss"] < steps[0]["loss"]


def test_a_reward_model_learns_which_side_is_better():
    pairs, optimizer = some_pairs(8), make_optimizer(1e-2)
    params, _ = add_reward_head(jax.random.key(0), PARAMS, CFG)
    batch = batch_pairs(pairs)
    rewards = jax.jit(partial(score_rewards, model=MODEL))(params, *batch.completions[:3])
    alone = batch_pairs(pairs[3:4])  # other padding, other neighbours
    np.testing.assert_allclose(
        jax.jit(partial(score_rewards, model=MODEL))(params, *alone.completions[:3])[0], rewards[3], atol=1e-5
    )
    update = jax.jit(partial(supervised_update, loss=partial(reward_loss, model=MODEL), optimizer=optimizer))
    state = init_state(params, optimizer, seed=0)
    for _ in range(15):
        state, metrics = update(state, next_pairs(state, pairs, 8))
    assert (int(state.step), int(state.position)) == (15, 15 * 8)
    assert metrics["accuracy"] == 1.0 and metrics["loss"] < 0.1

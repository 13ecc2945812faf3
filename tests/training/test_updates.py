"""The update: invariant to how a batch is cut, deaf to padding, silent without signal, safe with NaN."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxreason.models.scoring import score_completions
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.aggregate import fixed_length, sequence_mean, token_mean, token_sum
from jaxreason.objectives.algorithms import DAPO, DR_GRPO, GRPO
from jaxreason.training import make_batch, microbatch
from jaxreason.training.state import init_state, make_optimizer
from jaxreason.training.updates import grpo_loss, grpo_update
from jaxreason.types import Prompts, Rollouts
from tests.models.families import TINY, tiny_params

CFG = replace(TINY["qwen3"], layers=1)
MODEL, PARAMS = Transformer(CFG), tiny_params(CFG, seed=4)
P, G, S, T = 4, 3, 6, 5


def rollouts(seed: int = 0) -> Rollouts:
    """Completions of several lengths whose old log-probabilities are near, not at, the model's own."""
    rng = np.random.default_rng(seed)
    prompts = Prompts(
        jnp.array(rng.integers(0, CFG.vocab, (P, S)), jnp.int32),
        jnp.array(np.arange(S) < np.array([[6], [3], [1], [5]])),
    )
    tokens = jnp.array(rng.integers(0, CFG.vocab, (P, G, T)), jnp.int32)
    mask = jnp.array(np.arange(T) < rng.integers(1, T + 1, (P, G))[..., None])
    scores = jax.jit(partial(score_completions, model=MODEL))(PARAMS, prompts, tokens, mask)
    old = jnp.where(mask, scores.logps + jnp.array(rng.normal(size=mask.shape) * 0.2, jnp.float32), 0.0)
    return Rollouts(prompts, tokens, mask, old, truncated=jnp.array(rng.random((P, G)) < 0.3))


REWARDS = jnp.array([[1, 0, 0], [1, 1, 1], [0, 1, 1], [0, 0, 0.5]], jnp.float32)


@partial(jax.jit, static_argnames=("algorithm", "micro_batches"))
def step(batch, algorithm=GRPO, micro_batches=1):
    optimizer = make_optimizer(3e-3)
    state = init_state(PARAMS, optimizer, seed=0)
    settings = {"model": MODEL, "algorithm": algorithm, "optimizer": optimizer, "micro_batches": micro_batches}
    return grpo_update(state, batch, **settings)


@partial(jax.jit, static_argnames="algorithm")
def gradient(batch, algorithm=GRPO):
    loss = partial(grpo_loss, model=MODEL, algorithm=algorithm, temperature=1.0)
    return jax.grad(loss, has_aux=True)(PARAMS, batch)[0]


def assert_trees_close(ours, theirs, rtol=1e-6):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=rtol * float(jnp.abs(b).max()) + 1e-9)


def assert_gradients_close(ours, theirs, weight):
    """To 1e-6 for a unit of the tokens' weight, or of the gradient where it is larger."""
    away, largest = optax.tree.norm(jax.tree.map(jnp.subtract, ours, theirs), jnp.inf), optax.tree.norm(theirs, jnp.inf)
    assert float(away) <= 1e-6 * max(float(weight), float(largest))


def test_loss_is_the_formula_written_out():
    """GRPO with a KL term in numpy: a loop over completions and tokens."""
    algorithm = replace(GRPO, kl_weight=0.3)
    batch = rollouts()
    reference = jnp.where(batch.mask, batch.logps - 0.1, 0.0)
    prepared = make_batch(batch, REWARDS, algorithm, reference)
    loss = partial(grpo_loss, model=MODEL, algorithm=algorithm, temperature=1.0)
    value, _ = jax.jit(loss)(PARAMS, prepared)
    logps = np.asarray(score_completions(PARAMS, batch.prompts, batch.tokens, batch.mask, model=MODEL).logps)
    expected = 0.0
    for p in range(P):
        rewards = np.asarray(REWARDS[p], np.float64)
        for g in range(G):
            advantage = (rewards[g] - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
            length, total = int(batch.mask[p, g].sum()), 0.0
            for t in range(length):
                ratio = np.exp(logps[p, g, t] - float(batch.logps[p, g, t]))
                total -= min(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
                difference = float(reference[p, g, t]) - logps[p, g, t]
                total += 0.3 * (np.exp(difference) - difference - 1)
            expected += total / length / (P * G)
    np.testing.assert_allclose(value, expected, atol=1e-6)


AGGREGATES = [sequence_mean, token_mean, fixed_length, token_sum]


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_parts_of_a_batch_add_up_to_its_gradient(aggregate):
    algorithm = replace(GRPO, aggregate=aggregate)
    batch = make_batch(rollouts(), REWARDS, algorithm)._replace(consumed=None)
    parts = [gradient(jax.tree.map(lambda x, i=i: x[i : i + 1], batch), algorithm) for i in range(P)]
    assert_gradients_close(jax.tree.map(lambda *gs: sum(gs), *parts), gradient(batch, algorithm), batch.weights.sum())


def test_micro_batches_make_the_whole_batchs_step():
    batch = make_batch(rollouts(), REWARDS, GRPO)
    (whole, metrics), (cut, cut_metrics) = (step(batch, micro_batches=k) for k in (1, 4))
    for name in metrics:
        np.testing.assert_allclose(cut_metrics[name], metrics[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert_trees_close(cut.params, whole.params, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("memory", [1.0, 1e5, 3e5, 1e9])  # bytes: a completion at a time, a prompt, a few, all
@pytest.mark.parametrize("algorithm", [GRPO, replace(GRPO, kl_weight=0.1)])
def test_parts_of_their_own_length_make_the_whole_batchs_step(algorithm, memory, monkeypatch):
    monkeypatch.setattr(microbatch, "SHORTEST", 2)
    optimizer = make_optimizer(3e-3)
    settings = {"model": MODEL, "algorithm": algorithm, "optimizer": optimizer}
    sampled = rollouts()
    sampled = sampled._replace(mask=sampled.mask.at[2, :, 2:].set(False))  # one group is short
    batch = make_batch(sampled, REWARDS, algorithm, jnp.where(sampled.mask, sampled.logps - 0.1, 0.0))
    if algorithm.kl_weight:  # advantages of single tokens, as in distillation
        batch = batch._replace(advantages=batch.advantages + np.linspace(-1, 1, T, dtype=np.float32))
    pieces = list(microbatch.plan_microbatches(batch, MODEL, memory, dense=bool(algorithm.kl_weight)))
    mask = np.asarray(batch.rollouts.mask)
    used = mask if algorithm.kl_weight else mask[[0, 2, 3]]  # the second group has no signal
    assert sum(int(part.rollouts.mask.sum()) for part, _ in pieces) == used.sum()
    if memory == 1.0:
        assert {(len(part.weights), count) for part, count in pieces} == {(1, G)}
    update = microbatch.MicrobatchedUpdate(**settings, activation_bytes=memory)
    cut, cut_metrics = update(init_state(jax.tree.map(jnp.copy, PARAMS), optimizer, seed=0), batch)
    whole, metrics = jax.jit(partial(grpo_update, **settings))(init_state(PARAMS, optimizer, seed=0), batch)
    assert_trees_close(cut.params, whole.params, rtol=1e-4)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(cut_metrics[name], metrics[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_gradients_of_devices_add_up(aggregate):
    algorithm = replace(GRPO, aggregate=aggregate)
    batch = make_batch(rollouts(), REWARDS, algorithm)
    halves = jax.tree.map(lambda x: x.reshape(2, P // 2, *x.shape[1:]), batch._replace(consumed=None))
    loss = partial(grpo_loss, model=MODEL, algorithm=algorithm, temperature=1.0)

    def all_sum(params, batch):
        return jax.lax.psum(jax.grad(loss, has_aux=True)(params, batch)[0], "data")

    both = jax.pmap(all_sum, axis_name="data", in_axes=(None, 0))(PARAMS, halves)
    assert_gradients_close(jax.tree.map(lambda x: x[1], both), gradient(batch, algorithm), batch.weights.sum())


@pytest.mark.slow
def test_two_devices_under_pmap_make_the_same_step_as_one():
    batch = make_batch(rollouts(), REWARDS, GRPO)
    one, metrics = step(batch)
    optimizer = make_optimizer(3e-3)
    update = partial(grpo_update, model=MODEL, algorithm=GRPO, optimizer=optimizer, axis_name="data")
    halves = jax.tree.map(lambda x: x.reshape(2, P // 2, *x.shape[1:]), batch._replace(consumed=np.full(P, 1)))
    both, both_metrics = jax.pmap(update, axis_name="data", in_axes=(None, 0))(init_state(PARAMS, optimizer, 0), halves)
    for name in metrics:
        np.testing.assert_allclose(both_metrics[name], [metrics[name]] * 2, rtol=1e-4, atol=1e-6, err_msg=name)
    for device in (0, 1):
        assert_trees_close(jax.tree.map(lambda x, d=device: x[d], both.params), one.params, rtol=1e-4)


def test_masked_tokens_equal_a_batch_without_them():
    batch = rollouts()
    shorter = batch._replace(
        mask=jnp.array(np.asarray(batch.mask) & (np.arange(T) < 3)), truncated=jnp.zeros((P, G), bool)
    )
    cut = Rollouts(batch.prompts, batch.tokens[..., :3], shorter.mask[..., :3], batch.logps[..., :3], shorter.truncated)
    assert_trees_close(
        gradient(make_batch(shorter, REWARDS, GRPO)), gradient(make_batch(cut, REWARDS, GRPO)), rtol=1e-5
    )


def test_nothing_in_padding_reaches_the_gradient():
    batch = rollouts()
    poisoned = batch._replace(
        tokens=jnp.where(batch.mask, batch.tokens, 11), logps=jnp.where(batch.mask, batch.logps, jnp.nan)
    )
    clean, dirty = (gradient(make_batch(r, REWARDS, GRPO)) for r in (batch, poisoned))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(dirty))
    assert_trees_close(dirty, clean)
    _, metrics = step(make_batch(poisoned, REWARDS, GRPO))
    assert all(bool(jnp.isfinite(value)) for value in metrics.values())


def test_equal_rewards_move_nothing():
    batch = make_batch(rollouts(), jnp.ones((P, G)), GRPO)
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(gradient(batch)))
    state, metrics = step(batch)
    assert float(metrics["grad_norm"]) == 0
    assert_trees_close(state.params, PARAMS)


def test_what_algorithms_drop_leaves_the_denominator():
    batch = rollouts()
    weights = make_batch(batch, REWARDS, DAPO).weights
    weighted = batch.mask & ~batch.truncated[..., None] & jnp.array([True, False, True, True])[:, None, None]
    np.testing.assert_allclose(weights, weighted / weighted.sum(), rtol=1e-6)
    assert make_batch(batch, REWARDS, DR_GRPO).weights[1].any()  # keeps constant groups


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    batch = make_batch(rollouts(), REWARDS, GRPO)
    state, metrics = step(
        batch._replace(advantages=np.where(np.arange(P)[:, None, None] == 0, np.nan, batch.advantages))
    )
    assert int(metrics["skipped_updates"]) == 1
    assert_trees_close(state.params, PARAMS)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.opt_state))


@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
def test_batches_without_an_advantage_move_nothing(kl_weight):
    """200 of them after one that gave Adam its moments, with an entropy bonus; equal bit for bit, and they count."""
    optimizer, algorithm = make_optimizer(3e-3), replace(GRPO, kl_weight=kl_weight, entropy_weight=0.01)
    reference = rollouts().logps - 0.1
    moving, idle = (make_batch(rollouts(), each, algorithm, reference) for each in (REWARDS, jnp.full((P, G), 0.7)))
    settings = {"model": MODEL, "algorithm": algorithm, "optimizer": optimizer}
    for update in (jax.jit(partial(grpo_update, **settings)), microbatch.MicrobatchedUpdate(**settings)):
        state, metrics = update(init_state(jax.tree.map(jnp.copy, PARAMS), optimizer, seed=0), moving)
        assert metrics["idle_batch"] == 0
        before = jax.device_get((state.params, state.opt_state))
        for _ in range(200):
            state, metrics = update(state, idle)
        assert metrics["idle_batch"] == 1 and int(state.step) == 201
        jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), before)


def test_a_step_raises_the_probability_of_rewarded_completions():
    batch = rollouts()
    state, _ = step(make_batch(batch, REWARDS, GRPO))
    score = jax.jit(partial(score_completions, model=MODEL))
    before, after = (score(p, *batch[:3]).logps.sum(-1) for p in (PARAMS, state.params))
    advantages = GRPO.advantage(REWARDS)
    assert float(jnp.sum(advantages * (after - before))) > 0


def test_learning_rate_warms_up_linearly_and_global_norm_is_clipped():
    optimizer = make_optimizer(0.4, warmup_updates=4, max_norm=1.0)
    params = {"w": jnp.zeros(2)}
    opt_state, moved = optimizer.init(params), []
    for _ in range(6):
        updates, opt_state = optimizer.update({"w": jnp.array([300.0, 400.0])}, opt_state, params)
        moved.append(float(updates["w"][0]))
    np.testing.assert_allclose(moved, [-0.1, -0.2, -0.3, -0.4, -0.4, -0.4], rtol=1e-4)  # Adam's sign times the rate


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("inner_updates", [1, 3])
def test_every_batch_is_one_step_whatever_the_optimiser_does(finite, inner_updates):
    """Both GRPO updates; a gradient that is not finite is skipped, and its batch still counts."""
    optimizer = make_optimizer(3e-3)
    batch = make_batch(rollouts(), REWARDS, GRPO, consumed=7)
    if not finite:
        batch = batch._replace(advantages=np.full_like(batch.advantages, np.nan))
    settings = {"model": MODEL, "algorithm": GRPO, "optimizer": optimizer, "inner_updates": inner_updates}
    for update in (jax.jit(partial(grpo_update, **settings)), microbatch.MicrobatchedUpdate(**settings)):
        state = init_state(jax.tree.map(jnp.copy, PARAMS), optimizer, seed=0)
        for count in (1, 2):
            state, metrics = update(state, batch)
            assert (int(state.step), int(state.position)) == (count, 7 * count)
        assert int(metrics["skipped_updates"]) == (0 if finite else 2 * inner_updates)


def test_inner_updates_are_optimiser_steps_on_one_batch():
    optimizer = make_optimizer(3e-3)
    batch = make_batch(rollouts(), REWARDS, GRPO)
    settings = {"model": MODEL, "algorithm": GRPO, "optimizer": optimizer}
    start = init_state(PARAMS, optimizer, seed=0)
    whole, metrics = jax.jit(partial(grpo_update, **settings, inner_updates=2))(start, batch)
    one = jax.jit(partial(grpo_update, **settings))
    middle, first = one(start, batch)
    end, last = one(middle, batch)
    assert_trees_close(whole.params, end.params, rtol=1e-5)
    for name in metrics:
        expected = first if name.startswith("logp_difference") else last
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_precedes_the_update_is_on_the_host():
    """With another device as default, nothing of a batch is computed or kept there."""
    devices = []

    def aggregate(mask):
        devices.extend(mask.devices())
        return sequence_mean(mask)

    with jax.default_device(jax.devices()[3]):
        batch = make_batch(jax.device_get(rollouts()), np.asarray(REWARDS), replace(GRPO, aggregate=aggregate))
    assert devices == [jax.local_devices(backend="cpu")[0]]
    assert all(isinstance(x, np.ndarray | np.integer) for x in jax.tree.leaves(batch))

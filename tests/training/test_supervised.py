"""Learning from texts and pairs: each text as if alone, losses by hand, any cut of the batch the same step."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models.scoring import score_completions, score_packed
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.preference import dpo
from jaxreason.text import Document, pack
from jaxreason.training.state import init_state, make_optimizer
from jaxreason.training.supervised import (
    completion_logps,
    dpo_loss,
    supervised_update,
    text_loss,
    verified_pairs,
    weigh,
)
from jaxreason.types import Prompts, Rollouts
from tests.models.families import TINY, tiny_params

rng = np.random.default_rng(0)


@pytest.mark.parametrize("family", ["llama", "gemma3"])  # the second has sliding layers
def test_a_packed_text_scores_as_if_alone(family):
    cfg = TINY[family]
    model, params = Transformer(cfg), tiny_params(cfg, seed=1)
    texts = [rng.integers(0, cfg.vocab, n).tolist() for n in (9, 4, 7, 12, 5)]
    packed = pack(map(Document, texts), rows=3, length=16)
    packed = packed._replace(tokens=np.where(packed.segments > 0, packed.tokens, cfg.vocab - 1))
    scores = jax.jit(partial(score_packed, model=model))(params, packed)
    alone = jax.jit(partial(score_completions, model=model))
    found = 0
    for text in texts:
        prompts = Prompts(jnp.array([text[:1]]), jnp.ones((1, 1), bool))
        rest = jnp.array([[text[1:]]])
        expected = alone(params, prompts, rest, jnp.ones_like(rest, bool)).logps[0, 0]
        for row in range(3):
            for begin in range(16):
                if packed.tokens[row, begin : begin + len(text)].tolist() == text:
                    ours = scores.logps[row, begin + 1 : begin + len(text)]
                    np.testing.assert_allclose(ours, expected, atol=2e-5)
                    found += 1
    assert found == len(texts)
    assert float(jnp.abs(scores.logps[~packed.mask]).max()) == 0.0


CFG = replace(TINY["llama"], layers=1)
MODEL, PARAMS = Transformer(CFG), tiny_params(CFG, seed=2)


def test_text_step_is_adam_on_the_mean_over_learned_tokens():
    documents = [Document(rng.integers(0, CFG.vocab, n).tolist(), k) for n, k in ((9, 1), (8, 5), (3, 2), (6, 1))]
    packed = pack(documents, rows=4, length=9)
    optimizer = make_optimizer(1e-2, max_norm=1e9)
    steps = {}
    for parts in (1, 2):
        update = partial(supervised_update, loss=partial(text_loss, model=MODEL), optimizer=optimizer)
        update = jax.jit(partial(update, micro_batches=parts))
        steps[parts] = update(init_state(PARAMS, optimizer, seed=0), weigh(packed))
    scores = jax.jit(partial(score_packed, model=MODEL))(PARAMS, packed)
    assert int(packed.mask.sum()) == 8 + 3 + 1 + 5
    np.testing.assert_allclose(steps[1][1]["loss"], -scores.logps.sum() / 17, rtol=1e-5)
    for name, value in steps[1][1].items():
        np.testing.assert_allclose(value, steps[2][1][name], rtol=1e-5)
    assert int(steps[2][0].step) == 1
    for one, two in zip(jax.tree.leaves(steps[1][0].params), jax.tree.leaves(steps[2][0].params), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_learning_rate_falls_to_zero_along_a_cosine():
    optimizer = make_optimizer(1.0, warmup_updates=2, total_updates=6, max_norm=1e9)
    params, state, rates = jnp.zeros(()), optimizer.init(jnp.zeros(())), []
    for _ in range(7):
        updates, state = optimizer.update(jnp.ones(()), state, params)  # Adam of a constant gradient moves by the rate
        rates.append(-float(updates))
    expected = [0.5, 1.0, *(0.5 * (1 + np.cos(np.pi * i / 4)) for i in range(5))]
    np.testing.assert_allclose(rates, expected, atol=1e-4)


def test_dpo_by_hand():
    logps, reference = jnp.array([[-10.0, -12.0], [-5.0, -4.0]]), jnp.array([[-11.0, -11.0], [-5.0, -4.0]])
    loss, margin = dpo(logps, reference, beta=0.5)
    np.testing.assert_allclose(margin, [0.5 * ((-10 + 11) - (-12 + 11)), 0.0], atol=1e-6)  # 1 and 0
    np.testing.assert_allclose(loss, [np.log1p(np.exp(-1.0)), np.log(2.0)], rtol=1e-6)


def test_dpo_prefers_what_was_right_and_ignores_groups_that_agree():
    P, G, S, T = 3, 4, 2, 5
    prompts = Prompts(jnp.array(rng.integers(0, CFG.vocab, (P, S))), jnp.ones((P, S), bool))
    tokens = jnp.array(rng.integers(0, CFG.vocab, (P, G, T)))
    mask = jnp.arange(T) < jnp.array(rng.integers(1, T + 1, (P, G)))[..., None]
    rollouts = Rollouts(prompts, tokens, mask, jnp.zeros((P, G, T)), jnp.zeros((P, G), bool))
    rewards = jnp.array([[0, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 1]], jnp.float32)
    score = jax.jit(partial(completion_logps, model=MODEL))
    reference = score(PARAMS, rollouts)
    pairs = verified_pairs(rollouts, rewards, reference)
    np.testing.assert_array_equal(pairs.completions.tokens[0], tokens[0, [2, 0]])
    np.testing.assert_array_equal(pairs.completions.tokens[2], tokens[2, [0, 1]])
    np.testing.assert_allclose(pairs.weights, [0.5, 0.0, 0.5])
    optimizer = make_optimizer(1e-2)
    update = jax.jit(partial(supervised_update, loss=partial(dpo_loss, model=MODEL), optimizer=optimizer))
    state, metrics = update(init_state(PARAMS, optimizer, seed=0), pairs)
    np.testing.assert_allclose(metrics["loss"], np.log(2.0), rtol=1e-4)  # policy and reference are still the same
    after, before = score(state.params, rollouts), reference
    gained = (after[0, 2] - before[0, 2]) - (after[0, 0] - before[0, 0])
    assert gained > 0 and (after[2, 0] - before[2, 0]) > (after[2, 1] - before[2, 1])
    nobody = verified_pairs(rollouts, jnp.zeros((P, G)), reference)
    still, _ = update(init_state(PARAMS, optimizer, seed=0), nobody)
    for a, b in zip(jax.tree.leaves(still.params), jax.tree.leaves(PARAMS), strict=True):
        np.testing.assert_array_equal(a, b)

"""Learning from texts: each as if alone, any cut of the batch the same step, every text once an epoch."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models.scoring import score_completions, score_packed
from jaxreason.models.transformer import Transformer
from jaxreason.text import Document, prompt_completion
from jaxreason.training.state import init_state, make_optimizer
from jaxreason.training.supervised import make_sft_batch, sft_batch_metrics, sft_loss, shuffled_stream
from jaxreason.training.updates import supervised_update
from jaxreason.types import Prompts
from tests.models.families import TINY, tiny_params

rng = np.random.default_rng(0)


@pytest.mark.parametrize("family", ["llama", "gemma3"])  # the second has sliding layers
def test_a_packed_text_scores_as_if_alone(family):
    cfg = TINY[family]
    model, params = Transformer(cfg), tiny_params(cfg, seed=1)
    texts = [rng.integers(0, cfg.vocab, n).tolist() for n in (9, 4, 7, 12, 5)]
    packed = make_sft_batch(map(Document, texts), rows=3, length=16).packed
    packed = packed._replace(tokens=np.where(packed.segments > 0, packed.tokens, cfg.vocab - 1))
    positions = packed.target_positions.tolist()
    scores = jax.jit(partial(score_packed, model=model))(params, packed)
    alone = jax.jit(partial(score_completions, model=model))
    count = 0
    for text in texts:
        prompts = Prompts(jnp.array([text[:1]]), jnp.ones((1, 1), bool))
        rest = jnp.array([[text[1:]]])
        expected = alone(params, prompts, rest, jnp.ones_like(rest, bool)).logps[0, 0]
        for row in range(3):
            for begin in range(16):
                if packed.tokens[row, begin : begin + len(text)].tolist() == text:
                    first = positions[row].index(begin + 1)
                    ours = scores.logps[row, first : first + len(text) - 1]
                    np.testing.assert_allclose(ours, expected, atol=2e-5)
                    count += 1
    assert count == len(texts)
    assert float(jnp.abs(scores.logps[~packed.loss_mask]).max()) == 0.0


CFG = replace(TINY["llama"], layers=1)
MODEL, PARAMS = Transformer(CFG), tiny_params(CFG, seed=2)


def test_text_step_is_adam_on_the_mean_over_learned_tokens():
    texts = [(rng.integers(0, CFG.vocab, n).tolist(), k) for n, k in ((9, 1), (8, 5), (3, 2), (6, 1))]
    documents = [prompt_completion(text[:k], text[k:]) for text, k in texts]
    batch = make_sft_batch(documents, rows=4, length=9)
    packed = batch.packed
    optimizer = make_optimizer(1e-2, max_norm=1e9)
    steps = {}
    for parts in (1, 2):
        update = partial(supervised_update, loss=partial(sft_loss, model=MODEL), optimizer=optimizer)
        update = jax.jit(partial(update, micro_batches=parts))
        steps[parts] = update(init_state(PARAMS, optimizer, seed=0), batch)
    scores = jax.jit(partial(score_packed, model=MODEL))(PARAMS, packed)
    assert int(packed.loss_mask.sum()) == 8 + 3 + 1 + 5
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


def test_packed_texts_have_the_loss_and_the_gradient_of_a_row_each():
    texts = [rng.integers(0, CFG.vocab, n).tolist() for n in (7, 3, 5, 6, 4, 7)]
    documents = [prompt_completion(text[:2], text[2:]) for text in texts]
    loss = jax.jit(jax.value_and_grad(partial(sft_loss, model=MODEL), has_aux=True))
    together, apart = make_sft_batch(documents, rows=3, length=16), make_sft_batch(documents, rows=6, length=7)
    assert together.packed.loss_mask.sum() == apart.packed.loss_mask.sum() == sum(map(len, texts)) - 2 * len(texts)
    (packed, _), grads = loss(PARAMS, together)
    (alone, _), expected = loss(PARAMS, apart)
    np.testing.assert_allclose(packed, alone, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))


def test_every_text_once_an_epoch_and_a_restart_goes_on():
    documents = [Document([i, i + 1, i + 2]) for i in range(7)]
    state, order = init_state({}, make_optimizer(1e-3), seed=3), []
    for position in range(0, 21, 3):
        batch = make_sft_batch(
            shuffled_stream(documents, state._replace(position=jnp.int32(position))), rows=1, length=9
        )
        assert sft_batch_metrics(batch) == {"tokens": 6, "train_tokens": 9} and int(batch.consumed) == 3
        order += batch.packed.tokens[:, ::3].ravel().tolist()
    assert [sorted(order[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
    assert order[:7] != order[7:14]

"""Caches, shared prompts and padding change neither values nor gradients."""

from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models import fuse, scoring, unfuse
from jaxreason.models.attention import KV, AttentionMasks, attend
from jaxreason.models.scoring import score_completions, score_hidden, token_ranks
from jaxreason.models.transformer import Transformer, init_caches, run_completions, run_prompts, run_step, unembed
from jaxreason.types import Params, Prompts
from tests.models.families import SOME, TINY, tiny_batch, tiny_params

families = pytest.mark.parametrize("name", TINY)


def setting(name: str) -> tuple[Transformer, Params, Prompts, jax.Array]:
    prompts, tokens = tiny_batch(TINY[name], seed=5)
    return Transformer(TINY[name]), tiny_params(TINY[name], seed=5), prompts, jnp.array(tokens)


@partial(jax.jit, static_argnames=("model", "temperature"))
def logps(params: Params, prompts: Prompts, tokens: jax.Array, model: Transformer, temperature=1.0) -> jax.Array:
    mask = jnp.ones(tokens.shape, bool)
    return score_completions(params, prompts, tokens, mask, model=model, temperature=temperature).logps


@families
def test_cached_steps_equal_the_uncached_pass(name):
    model, params, prompts, tokens = setting(name)
    prefill, complete, step = (jax.jit(partial(f, model=model)) for f in (run_prompts, run_completions, run_step))
    _, prompt_kv = prefill(params, prompts)
    whole = complete(params, tokens, prompt_kv)
    begin, (P, G, T) = jnp.array([0, 2]), tokens.shape  # the second prompt's completions join two slots later
    caches = init_caches(prompt_kv, G, T + 2)
    caches = jax.tree.map(lambda x: x + 100.0, caches)  # what other completions left in the slots must be masked
    for slot in range(T + 2):
        at = jnp.clip(slot - begin, 0, T - 1)[:, None, None]
        now = jnp.take_along_axis(tokens, at, axis=2)[:, :, 0]
        hidden, caches = step(params, now, jnp.array(slot), begin, prompt_kv, caches)
        for p in range(P):
            if 0 <= slot - begin[p] < T:
                np.testing.assert_allclose(hidden[p], whole[p, :, slot - begin[p]], atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_joined_matrices_change_nothing(name):
    model, params, prompts, tokens = setting(name)
    joined = fuse(params)
    layer = joined["model"]["layers"]["0"]
    assert set(layer["self_attn"]) & {"q_proj", "qkv_proj"} == {"qkv_proj"} and set(layer["mlp"]) == {
        "gate_up_proj",
        "down_proj",
    }
    np.testing.assert_allclose(logps(joined, prompts, tokens, model), logps(params, prompts, tokens, model), atol=1e-5)
    chex.assert_trees_all_equal(unfuse(joined, model.cfg), params)


@pytest.mark.parametrize("name", SOME)
def test_shared_prompt_equals_repeated_prompt_in_values_and_gradients(name):
    """The prompt once with G completions, against prompt and completion as one plain sequence, G times."""
    model, params, prompts, tokens = setting(name)
    weights = jnp.array(np.random.default_rng(0).normal(size=tokens.shape), jnp.float32)

    def shared(params):
        return jnp.sum(weights * logps(params, prompts, tokens, model))

    lengths = prompts.lengths.tolist()
    rows = np.zeros((4, prompts.tokens.shape[1] + tokens.shape[2]), np.int32)  # (p, g) = (0, 0), (0, 1), (1, 0), (1, 1)
    for row, (p, g) in zip(rows, np.ndindex(2, 2), strict=True):
        plain = [*prompts.tokens[p, : lengths[p]].tolist(), *tokens[p, g].tolist()]
        row[: len(plain)] = plain
    plain = Prompts(jnp.array(rows), jnp.ones(rows.shape, bool))

    def repeated(params):
        hidden, _ = run_prompts(params, plain, model=model)
        scores = jax.nn.log_softmax(unembed(params, hidden, model=model))
        total = 0.0
        for row, (p, g) in enumerate(np.ndindex(2, 2)):
            for t in range(tokens.shape[2]):
                total += weights[p, g, t] * scores[row, lengths[p] + t - 1, tokens[p, g, t]]
        return total

    (value, grads), (expected, expected_grads) = (jax.jit(jax.value_and_grad(f))(params) for f in (shared, repeated))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(jnp.abs(theirs).max()))


@families
def test_a_row_alone_equals_the_row_in_the_batch(name):
    model, params, prompts, tokens = setting(name)
    together = logps(params, prompts, tokens, model)
    for p, length in enumerate(prompts.lengths.tolist()):
        alone = Prompts(prompts.tokens[p : p + 1, :length], prompts.mask[p : p + 1, :length])
        row = logps(params, alone, tokens[p : p + 1, 1:], model)
        np.testing.assert_allclose(row[0, 0], together[p, 1], atol=1e-5)


def test_rematerialised_blocks_have_the_same_gradient():
    model, params, prompts, tokens = setting("qwen3")
    plain, remat = (
        jax.jit(jax.grad(lambda p, m=m: logps(p, prompts, tokens, m).sum()))(params)
        for m in (model, Transformer(model.cfg, remat=True))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, remat)


@pytest.mark.parametrize("vocab", [30, 29])  # in five chunks of six; in five of five and a remainder
def test_scores_in_chunks_of_the_vocabulary_are_those_of_the_whole(monkeypatch, vocab):
    model, params, _, tokens = setting("llama")
    model, tokens = Transformer(replace(model.cfg, vocab=vocab)), tokens % vocab
    params = tiny_params(model.cfg, seed=5)
    mask = jnp.ones(tokens.shape, bool).at[1, 0, 2:].set(False)
    hidden = jax.random.normal(jax.random.key(1), (*tokens.shape, model.cfg.hidden_size))
    weights = jnp.arange(tokens.size, dtype=jnp.float32).reshape(tokens.shape)

    def whole(params, hidden):
        logps = jax.nn.log_softmax(unembed(params, hidden, model=model) / 0.7)
        entropy = -(jnp.exp(logps) * logps).sum(axis=-1)
        certainty = -(jnp.log(vocab) + logps).mean(axis=-1)  # KL of uniform u: sum of u (log u - logp)
        chosen = jnp.take_along_axis(logps, tokens[..., None], axis=-1)[..., 0]
        return jnp.where(mask, weights * chosen + entropy + 0.1 * certainty, 0).sum()

    def chunks(params, hidden):
        logps, entropy, certainty = score_hidden(params, hidden, tokens, mask, model=model, temperature=0.7)
        return (weights * logps + entropy + 0.1 * certainty).sum()

    monkeypatch.setattr("jaxreason.models.scoring.MAX_CHUNK_LOGITS", 0)
    monkeypatch.setattr("jaxreason.models.scoring.MIN_CHUNK", 7)
    expected, ours = (jax.value_and_grad(f, argnums=(0, 1))(params, hidden) for f in (whole, chunks))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


def test_nan_states_of_padding_do_not_reach_the_unembeddings_gradient():
    model, params, _, tokens = setting("llama")
    mask = jnp.ones(tokens.shape, bool).at[0, 0, 3].set(False)
    hidden = jnp.ones((*tokens.shape, model.cfg.hidden_size)).at[0, 0, 3].set(jnp.nan)
    score = jax.jit(jax.grad(lambda p: score_hidden(p, hidden, tokens, mask, model=model).logps.sum()))
    assert bool(jnp.isfinite(score(params)["model"]["embed_tokens"]["weight"]).all())


def test_entropy_is_that_of_the_tempered_distribution():
    model, params, prompts, tokens = setting("llama")
    mask = jnp.ones(tokens.shape, bool)
    scores = score_completions(params, prompts, tokens, mask, model=model, temperature=2.0)
    hidden, _ = run_prompts(params, prompts, model=model)
    logits = np.asarray(unembed(params, hidden[1, 3], model=model), np.float64) / 2.0  # row 1 has four tokens
    p = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(scores.entropy[1, :, 0], -(p * np.log(p)).sum(), rtol=1e-5)
    np.testing.assert_allclose(scores.logps[1, 0, 0], np.log(p[int(tokens[1, 0, 0])]), rtol=1e-5)


def test_ranks_count_what_is_more_probable(monkeypatch):
    monkeypatch.setattr(scoring, "MIN_CHUNK", 8)  # many chunks
    monkeypatch.setattr(scoring, "MAX_CHUNK_LOGITS", 1)
    model, params, prompts, tokens = setting("llama")
    mask = jnp.ones(tokens.shape, bool).at[1, 1, 2:].set(False)
    ranks = token_ranks(params, prompts, tokens, mask, model=model)
    hidden, _ = run_prompts(params, prompts, model=model)
    order = np.argsort(-np.asarray(unembed(params, hidden[1, 3], model=model)))  # row 1 has four tokens
    for g, token in enumerate(tokens[1, :, 0].tolist()):
        assert order[int(ranks[1, g, 0])] == token
    np.testing.assert_array_equal(ranks[1, 1, 2:], 0)
    best = jnp.full_like(tokens, order[0])
    assert (token_ranks(params, prompts, best, mask, model=model)[1, :, 0] == 0).all()


def test_softmax_of_bfloat16_is_computed_in_float32():
    """Against one softmax in float64 of the same inputs: only weights and outputs may be rounded, once each."""
    unit = 2.0**-8  # largest relative error of rounding to bfloat16
    P, G, T, S, N, K, H = 2, 3, 5, 7, 4, 2, 8
    rng = np.random.default_rng(0)
    q, own_k, own_v, prompt_k, prompt_v = (
        jnp.array(rng.normal(size=shape), jnp.bfloat16)
        for shape in ((P, G, T, N, H), (P, G, K, H, T), (P, G, K, T, H), (P, K, H, S), (P, K, S, H))
    )
    q, causal, real = 16 * q, np.tril(np.ones((1, T, T), bool)), np.arange(S) < np.array([[7], [4]])
    masks = AttentionMasks(jnp.array(causal), jnp.array(np.broadcast_to(real[:, None], (P, T, S))))
    out = attend(q, KV(own_k, own_v), KV(prompt_k, prompt_v), masks, 0.25)
    assert out.dtype == jnp.bfloat16
    for p, g, n in np.ndindex(P, G, N):
        k = n // (N // K)
        keys, values = (
            np.concatenate([np.asarray(x, np.float64) for x in pair])
            for pair in ((prompt_k[p, k].T, own_k[p, g, k].T), (prompt_v[p, k], own_v[p, g, k]))
        )
        scores = np.asarray(q[p, g, :, n], np.float64) @ keys.T / 4
        weights = np.exp(scores) * np.concatenate([np.broadcast_to(real[p], (T, S)), causal[0]], axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        bound = (2 * unit + 1e-4) * weights @ np.abs(values)
        assert (np.abs(np.asarray(out[p, g, :, n], np.float64) - weights @ values) < bound).all()

    model, params, prompts, tokens = setting("gemma3")
    hidden, _ = run_prompts(params, prompts, model=Transformer(model.cfg, jnp.bfloat16))
    assert hidden.dtype == jnp.bfloat16
    ids = tokens[:, 0]
    scores = score_hidden(params, hidden[:, :5], ids, jnp.ones(ids.shape, bool), model=model)
    table = np.asarray(params["model"]["embed_tokens"]["weight"].astype(jnp.bfloat16), np.float64)
    logits = np.asarray(hidden[:, :5], np.float64) @ table.T
    expected = np.take_along_axis(logits, np.asarray(ids)[..., None], -1)[..., 0] - np.logaddexp.reduce(logits, axis=-1)
    np.testing.assert_allclose(scores.logps, expected, atol=1e-4)  # logits of up to 20, rounded to bfloat16: 0.05

"""Divergences and losses over pairs: by hand, over whole vocabularies, and against PyTorch where it is installed."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models import scoring
from jaxreason.models.scoring import TopK, full_divergence, topk_divergence
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.divergence import forward_kl, jensen_shannon, reverse_kl
from jaxreason.objectives.preference import bradley_terry, dpo, ipo, simpo
from tests.models.families import TINY

rng = np.random.default_rng(0)
BETA = 0.3


def pairs() -> list[jax.Array]:
    logps, reference = -rng.uniform(1, 30, (2, 7, 2)).astype(np.float32)
    return [jnp.array(x) for x in (logps, reference, rng.integers(1, 20, (7, 2)))]


def test_pairs_by_hand():
    logps, reference = jnp.array([[-10.0, -12.0], [-5.0, -4.0]]), jnp.array([[-11.0, -11.0], [-5.0, -4.0]])
    lengths = jnp.array([[2, 4], [5, 4]])
    loss, rewards = dpo(logps, reference, lengths, beta=0.5)
    np.testing.assert_allclose(rewards, [[0.5, -0.5], [0.0, 0.0]])
    np.testing.assert_allclose(loss, [np.log1p(np.exp(-1.0)), np.log(2.0)], rtol=1e-6)
    smooth = dpo(logps, reference, lengths, beta=0.5, label_smoothing=0.25).loss  # log(1 + e^m) - log(1 + e^-m) = m
    np.testing.assert_allclose(smooth, loss + 0.25 * (rewards[:, 0] - rewards[:, 1]), rtol=1e-6)
    np.testing.assert_allclose(ipo(logps, reference, lengths, beta=2.0).loss, [0.25, 0.0625])  # (1/2 + 1/4 - 1/4)²
    np.testing.assert_allclose(simpo(logps, reference, lengths, beta=1.0, gamma=2.0).loss[1], np.log1p(np.exp(2.0)))
    np.testing.assert_allclose(bradley_terry(jnp.array([[3.0, 1.0]])), [np.log1p(np.exp(-2.0))], rtol=1e-6)


def torch_pair_losses(torch, logps, reference, lengths):
    sigmoid = torch.nn.functional.logsigmoid
    ratios = logps - reference
    margin = BETA * (ratios[:, 0] - ratios[:, 1])
    per_token = ratios / lengths
    return {
        "dpo": -sigmoid(margin),
        "conservative": -0.9 * sigmoid(margin) - 0.1 * sigmoid(-margin),
        "ipo": (per_token[:, 0] - per_token[:, 1] - 1 / (2 * BETA)) ** 2,
        "simpo": -sigmoid(BETA * (logps / lengths)[:, 0] - BETA * (logps / lengths)[:, 1] - 0.5),
        "bradley_terry": -sigmoid(logps[:, 0] - logps[:, 1]),
    }


@pytest.mark.parity
def test_pairs_against_torch():
    torch = pytest.importorskip("torch")
    logps, reference, lengths = pairs()
    ours = {
        "dpo": lambda x: dpo(x, reference, lengths, beta=BETA).loss,
        "conservative": lambda x: dpo(x, reference, lengths, beta=BETA, label_smoothing=0.1).loss,
        "ipo": lambda x: ipo(x, reference, lengths, beta=BETA).loss,
        "simpo": lambda x: simpo(x, reference, lengths, beta=BETA, gamma=0.5).loss,
        "bradley_terry": bradley_terry,
    }
    for name, loss in ours.items():
        x, *others = (torch.tensor(np.asarray(array)) for array in (logps, reference, lengths))
        expected = torch_pair_losses(torch, x.requires_grad_(), *others)[name]
        expected.sum().backward()
        np.testing.assert_allclose(loss(logps), expected.detach(), rtol=1e-5, atol=1e-5, err_msg=name)
        slope = jax.grad(lambda x, loss=loss: loss(x).sum())(logps)
        np.testing.assert_allclose(slope, x.grad, rtol=1e-5, atol=1e-5, err_msg=name)


# --- divergences: 50 entries in chunks of at least 12, a teacher of another width and with 3 entries of padding ---

V, D, E, T = 50, 8, 12, 6
STUDENT, TEACHER = (Transformer(replace(TINY["llama"], vocab=v, hidden_size=w)) for v, w in ((V, D), (V + 3, E)))
DIVERGENCES = {
    "forward": forward_kl,
    "reverse": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "generalised": partial(jensen_shannon, weight=0.9),
}


@pytest.fixture
def heads(monkeypatch):
    """Unembeddings and hidden states of a student and a teacher, and a mask; chunks smaller than the vocabulary."""
    monkeypatch.setattr(scoring, "MIN_CHUNK", 12)
    monkeypatch.setattr(scoring, "MAX_CHUNK_LOGITS", 1)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((V, D), (2, T, D), (V + 3, E), (2, T, E))]
    return [jnp.array(x) for x in (*arrays, rng.random((2, T)) < 0.7)]


def params(weight):
    return {"model": {"embed_tokens": {"weight": weight}}}


def divergence_of(weight, hidden, teacher_weight, teacher_hidden, mask, divergence, temperature=1.5):
    return full_divergence(
        params(weight),
        hidden,
        params(teacher_weight),
        teacher_hidden,
        mask,
        model=STUDENT,
        teacher_model=TEACHER,
        divergence=divergence,
        temperature=temperature,
    )


def test_divergences_from_oneself_are_zero_and_nowhere_negative(heads):
    weight, hidden, *teacher, mask = heads
    for name, divergence in DIVERGENCES.items():
        same = full_divergence(
            *(params(weight), hidden) * 2, mask, model=STUDENT, teacher_model=STUDENT, divergence=divergence
        )
        np.testing.assert_allclose(same, 0.0, atol=1e-5, err_msg=name)
        values = divergence_of(weight, hidden, *teacher, mask, divergence)
        assert float(values[mask].min()) > 0 and float(jnp.abs(values[~mask]).max()) == 0, name


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_are_sums_over_the_whole_vocabulary(name, heads):
    weight, hidden, teacher_weight, teacher_hidden, mask = heads
    ours = jax.nn.log_softmax(hidden @ weight.T / 1.5)
    theirs = jax.nn.log_softmax(teacher_hidden @ teacher_weight[:V].T / 1.5)
    p, q = jnp.exp(ours), jnp.exp(theirs)
    w = {"jensen_shannon": 0.5, "generalised": 0.9}.get(name, 0.0)
    between = jnp.log(w * q + (1 - w) * p)
    expected = {"forward": (q * (theirs - ours)).sum(-1), "reverse": (p * (ours - theirs)).sum(-1)}.get(
        name, (w * q * (theirs - between) + (1 - w) * p * (ours - between)).sum(-1)
    )
    actual = jax.jit(partial(divergence_of, divergence=DIVERGENCES[name]))(*heads)
    np.testing.assert_allclose(actual, jnp.where(mask, expected, 0.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_against_torch(name, heads):
    torch = pytest.importorskip("torch")
    kl = partial(torch.nn.functional.kl_div, reduction="none", log_target=True)  # of the second from the first
    weight, hidden, teacher_weight, teacher_hidden, mask = heads
    w, x = (torch.tensor(np.asarray(a), requires_grad=True) for a in (weight, hidden))
    ours = torch.log_softmax(x @ w.T / 1.5, -1)
    theirs = torch.log_softmax(torch.tensor(np.asarray(teacher_hidden @ teacher_weight[:V].T / 1.5)), -1)
    share = {"jensen_shannon": 0.5, "generalised": 0.9}.get(name, 0.5)
    mixture = torch.log(share * theirs.exp() + (1 - share) * ours.exp())
    expected = {"forward": kl(ours, theirs), "reverse": kl(theirs, ours)}.get(
        name, share * kl(mixture, theirs) + (1 - share) * kl(mixture, ours)
    ).sum(-1)
    (expected * torch.tensor(np.asarray(mask))).sum().backward()

    def total(weight, hidden):
        return divergence_of(weight, hidden, teacher_weight, teacher_hidden, mask, DIVERGENCES[name]).sum()

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(weight, hidden)
    for slope, tensor in zip(slopes, (w, x), strict=True):
        np.testing.assert_allclose(slope, tensor.grad, rtol=1e-5, atol=1e-5)


def test_stored_top_tokens_and_the_rest(heads):
    weight, hidden, teacher_weight, teacher_hidden, mask = heads
    theirs = jax.nn.log_softmax(teacher_hidden @ teacher_weight[:V].T)
    ours = jax.nn.log_softmax(hidden @ weight.T)
    for count in (4, V - 1):
        logps, ids = jax.lax.top_k(theirs, count)
        stored = np.zeros(theirs.shape, bool)
        np.put_along_axis(stored, np.asarray(ids), True, axis=-1)
        p, q = (jnp.exp(x) for x in (ours, theirs))
        left = [jnp.where(stored, 0.0, x).sum(-1) for x in (p, q)]
        expected = jnp.where(stored, q * (theirs - ours), 0.0).sum(-1) + left[1] * jnp.log(left[1] / left[0])
        actual = topk_divergence(params(weight), hidden, TopK(ids, logps), mask, model=STUDENT, divergence=forward_kl)
        np.testing.assert_allclose(actual, jnp.where(mask, expected, 0.0), rtol=1e-4, atol=1e-5)
    whole = divergence_of(weight, hidden, teacher_weight, teacher_hidden, mask, forward_kl, temperature=1.0)
    np.testing.assert_allclose(actual, whole, rtol=1e-4, atol=1e-4)  # all but one stored: nothing is lost

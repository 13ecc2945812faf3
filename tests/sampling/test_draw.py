"""Draws against their distribution, truncations against a sorted list read by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.errors import InputError
from jaxreason.sampling.draw import Sampling, draw, inverse_cdf, truncate

PROBABILITIES = np.array([0.05, 0.4, 0.02, 0.3, 0.1, 0.13])


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(), {0, 1, 2, 3, 4, 5}),
        (Sampling(top_k=2), {1, 3}),
        (Sampling(top_p=0.7), {1, 3}),  # 0.4 + 0.3 reaches it
        (Sampling(top_p=0.71), {1, 3, 5}),
        (Sampling(top_p=0.0), {1}),  # the most probable token always stays
        (Sampling(min_p=0.25), {1, 3, 4, 5}),  # at least 0.1
        (Sampling(top_k=3, top_p=0.8), {1, 3}),  # of the three left, 0.7 / 0.83 is enough
    ],
)
def test_truncation_keeps(sampling, allowed):
    logits = jnp.log(jnp.array([PROBABILITIES], jnp.float32)) + 3.0
    assert set(np.flatnonzero(np.isfinite(truncate(logits, sampling)[0])).tolist()) == allowed


@pytest.mark.parametrize("vocab", [6, 256, 1000])
def test_inverse_cdf_inverts_the_cumulative_distribution(vocab):
    """Uniforms in the middle of every token's slice return exactly that token, impossible tokens never."""
    rng = np.random.default_rng(vocab)
    p = rng.dirichlet(np.ones(vocab))
    p[rng.choice(vocab, vocab // 3, replace=False)] = 0
    p /= p.sum()
    middles = np.cumsum(p) - p / 2
    wide = np.flatnonzero(p > 1e-5)  # narrower slices than float32 can address are left out
    with np.errstate(divide="ignore"):
        logits = jnp.broadcast_to(jnp.log(jnp.array(p, jnp.float32)), (len(wide), vocab))
    np.testing.assert_array_equal(inverse_cdf(logits, jnp.array(middles[wide], jnp.float32)), wide)


def test_extreme_uniforms_hit_possible_tokens():
    logits = jnp.full((2, 600), -jnp.inf).at[:, 300].set(0.0).at[:, 301].set(-1.0)
    edges = jnp.array([0.0, np.nextafter(np.float32(1), np.float32(0))])
    np.testing.assert_array_equal(inverse_cdf(logits, edges), [300, 301])


def test_frequencies_match_the_distribution():
    """Chi-squared over 100,000 draws; the 99.9 % point of 5 degrees of freedom is 20.5."""
    n = 100_000
    logits = jnp.broadcast_to(jnp.log(jnp.array(PROBABILITIES, jnp.float32)) * 0.7, (n, 6))  # temperature undoes 0.7
    tokens, _ = draw(logits, jax.random.uniform(jax.random.key(0), (n,)), Sampling(temperature=0.7))
    counts = np.bincount(tokens, minlength=6)
    assert ((counts - n * PROBABILITIES) ** 2 / (n * PROBABILITIES)).sum() < 20.5


def test_log_probabilities_are_tempered_but_not_renormalised_after_truncation():
    logits = jnp.log(jnp.array([PROBABILITIES], jnp.float32))
    token, logp = draw(logits, jnp.array([0.0]), Sampling(temperature=2.0, top_k=1))
    square_roots = np.sqrt(PROBABILITIES)
    np.testing.assert_allclose(logp, np.log(square_roots[1] / square_roots.sum()), rtol=1e-6)
    greedy, logp = draw(logits, jnp.array([0.99]), Sampling(temperature=0.0))
    assert token[0] == greedy[0] == 1
    np.testing.assert_allclose(logp, np.log(0.4), rtol=1e-6)


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 1.5}, {"min_p": -0.1}, {"top_k": -1}])
def test_what_cannot_be_meant_is_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} .* is out of range"):
        Sampling(**wrong)

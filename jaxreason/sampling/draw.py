"""Drawing one token from logits: temperature, top-k, top-p, min-p, greedy."""

from dataclasses import dataclass
from math import inf

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxreason.errors import InputError
from jaxreason.types import Array

BLOCK = 256
"""Width of the second level of the two-level search: about the square root of a large vocabulary."""

RANGES = {"temperature": (0.0, inf), "top_k": (0, inf), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0)}


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. Truncations apply to the tempered distribution, in the order of the fields."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most probable tokens with at least this mass (arXiv 1904.09751)."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as probable as the most probable one (arXiv 2407.01082)."""

    def __post_init__(self):
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} {getattr(self, name)} is out of range: give a number from {low} to {high}")


GREEDY = Sampling(temperature=0.0)


def truncate(logits: Float[Array, "*batch V"], sampling: Sampling) -> Float[Array, "*batch V"]:
    """Sets every excluded token of tempered logits to -inf; ties at a threshold all stay."""
    floor = jnp.full(logits.shape[:-1], -jnp.inf)
    if 0 < sampling.top_k < logits.shape[-1]:
        floor = jax.lax.top_k(logits, sampling.top_k)[0][..., -1]
    if sampling.top_p < 1:
        descending = -jnp.sort(-jnp.where(logits >= floor[..., None], logits, -jnp.inf), axis=-1)
        probabilities = jax.nn.softmax(descending)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities  # mass of the more probable tokens
        nucleus = jnp.where(before < max(sampling.top_p, 1e-9), descending, jnp.inf)  # never empty
        floor = jnp.maximum(floor, nucleus.min(axis=-1))
    if sampling.min_p > 0:
        floor = jnp.maximum(floor, logits.max(axis=-1) + jnp.log(sampling.min_p))
    return jnp.where(logits >= floor[..., None], logits, -jnp.inf)


def draw(
    logits: Float[Array, "*batch V"], uniform: Float[Array, "*batch"], sampling: Sampling
) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"]]:
    """Tokens, and their log-probabilities under the tempered but untruncated distribution (greedy: temperature 1).

    `uniform` in [0, 1) is the only randomness. A policy gradient differentiates untruncated log-probabilities;
    renormalised ones would differ from the trainer's by the truncated mass.
    """
    logits = logits.astype(jnp.float32)
    if sampling.temperature == 0:
        tokens = jnp.argmax(logits, axis=-1)
    else:
        logits = logits / sampling.temperature
        tokens = inverse_cdf(truncate(logits, sampling), uniform)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return tokens, chosen - jax.nn.logsumexp(logits, axis=-1)


def inverse_cdf(logits: Float[Array, "*batch V"], uniform: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
    """The token whose interval of the cumulative distribution contains `uniform`, by a two-level search.

    One uniform number per row replaces V Gumbel variates; block sums replace a cumulative sum over V.
    """
    vocab = logits.shape[-1]
    logits = jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, -vocab % BLOCK)], constant_values=-jnp.inf)
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True)).reshape(*logits.shape[:-1], -1, BLOCK)

    totals = jnp.cumsum(weights.sum(axis=-1), axis=-1)
    target = uniform * totals[..., -1]  # below the last total: uniform < 1 and the product rounds down
    block = jnp.argmax(totals > target[..., None], axis=-1)
    before = jnp.where(block > 0, jnp.take_along_axis(totals, block[..., None] - 1, axis=-1)[..., 0], 0.0)

    inside = jnp.cumsum(jnp.take_along_axis(weights, block[..., None, None], axis=-2)[..., 0, :], axis=-1)
    # Two summation orders differ by rounding: stay below the block's own total, to hit a token of weight > 0.
    rest = jnp.minimum(target - before, jnp.nextafter(inside[..., -1], 0.0))
    return block * BLOCK + jnp.argmax(inside > rest[..., None], axis=-1)

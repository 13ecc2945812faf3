"""Log-probability and entropy of given tokens, without ever holding logits of whole sequences.

`[*, V]` logits of a batch are most of an update's memory, so the unembedding stands inside a scan over chunks of the
vocabulary whose body is rematerialised: the backward pass recomputes one chunk's logits at a time, and writes that
chunk of the unembedding's gradient once. (Chunks of rows would add up a gradient of the whole table for each.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxreason.models.transformer import (
    Transformer,
    logits_of,
    run_completions,
    run_packed,
    run_prompts,
    unembedding,
)
from jaxreason.types import Packed, Params, Prompts

CHUNK_FLOATS = 2**22
"""Logits held at once: 16 MiB in float32, which caches of CPUs hold, more for over 4,096 rows."""
NARROWEST = 1024
"""Entries of the vocabulary in a chunk, at least: below, adding up the gradient of the rows outweighs the products."""


class Scores(NamedTuple):
    logps: Float[Array, "*batch"]
    """Log-probability (nats) of each token under the tempered distribution; 0 where masked."""
    entropy: Float[Array, "*batch"]
    """Entropy (nats) of the distribution each token was drawn from; 0 where masked."""


class Sums(NamedTuple):
    """What is known of each row's softmax after some chunks of the vocabulary."""

    largest: Float[Array, "R"]
    exps: Float[Array, "R"]
    """Sum of exp(logit - largest)."""
    weighted: Float[Array, "R"]
    """Sum of logit * exp(logit - largest)."""
    chosen: Float[Array, "R"]
    """Logit of the row's token."""


def score_hidden(
    params: Params,
    hidden: Float[Array, "*batch D"],
    tokens: Int[Array, "*batch"],
    mask: Bool[Array, "*batch"],
    *,
    model: Transformer,
    temperature: float = 1.0,
) -> Scores:
    """Scores `tokens` under softmax(unembed(hidden) / temperature), in float32.

    Its logarithm of a sum grows chunk by chunk beside the maximum so far (Milakov & Gimelshein,
    https://arxiv.org/abs/1805.02867).
    """
    rows, weight = mask.size, unembedding(params, model=model)
    # A NaN in padding must not reach a gradient: masking the result alone would multiply it by a zero cotangent.
    hidden, tokens = jnp.where(mask[..., None], hidden, 0).reshape(rows, -1), tokens.reshape(rows)

    @jax.checkpoint
    def chunk(sums: Sums, weight: Float[Array, "C D"], first: Int[Array, ""], hidden: Float[Array, "R D"]) -> Sums:
        logits = logits_of(hidden, weight) / temperature
        largest = jnp.maximum(sums.largest, jax.lax.stop_gradient(logits.max(axis=-1)))
        exps, shrink = jnp.exp(logits - largest[:, None]), jnp.exp(sums.largest - largest)
        place = jnp.clip(tokens - first, 0, len(weight) - 1)
        here = jnp.take_along_axis(logits, place[:, None], axis=-1)[:, 0]
        return Sums(
            largest,
            sums.exps * shrink + exps.sum(axis=-1),
            sums.weighted * shrink + (exps * logits).sum(axis=-1),
            sums.chosen + jnp.where(tokens - first == place, here, 0.0),
        )

    count, size = _chunks(len(weight), max(NARROWEST, CHUNK_FLOATS // max(rows, 1)))
    pieces = weight[: count * size].reshape(count, size, -1), size * jnp.arange(count)
    zeros = jnp.zeros(rows)
    sums = Sums(jnp.full(rows, -jnp.inf), zeros, zeros, zeros)
    sums, _ = jax.lax.scan(lambda sums, piece: (chunk(sums, *piece, hidden), None), sums, pieces)
    if count * size < len(weight):
        sums = chunk(sums, weight[count * size :], jnp.int32(count * size), hidden)
    log_total = sums.largest + jnp.log(sums.exps)
    scores = Scores(sums.chosen - log_total, log_total - sums.weighted / sums.exps)
    return Scores(*(jnp.where(mask, x.reshape(mask.shape), 0.0) for x in scores))


def _chunks(vocab: int, widest: int) -> tuple[int, int]:
    """How many chunks of what size: equal ones if up to twice as many will do that, else with a remainder."""
    least = -(-vocab // widest)
    count = next((n for n in range(least, 2 * least + 1) if vocab % n == 0), least)
    return count, vocab // count


def score_completions(
    params: Params,
    prompts: Prompts,
    tokens: Int[Array, "P G T"],
    mask: Bool[Array, "P G T"],
    *,
    model: Transformer,
    temperature: float = 1.0,
) -> Scores:
    """Teacher-forced scores of completions; each prompt runs once, gradients of its whole group flow back into it."""
    hidden_prompts, context = run_prompts(params, prompts, model=model)
    P, G, _ = tokens.shape
    last = hidden_prompts[jnp.arange(P), context.lengths - 1]  # predicts the first completion token of every member
    last = jnp.broadcast_to(last[:, None, None], (P, G, 1, last.shape[-1]))
    hidden = run_completions(params, tokens[..., :-1], context, model=model)
    hidden = jnp.concatenate([last, hidden], axis=2)
    return score_hidden(params, hidden, tokens, mask, model=model, temperature=temperature)


def score_packed(params: Params, packed: Packed, *, model: Transformer) -> Scores:
    """Scores [P T] of the tokens under `packed.mask`, each given its own text up to it."""
    tokens, segments, mask = packed
    hidden = run_packed(params, tokens[:, :-1], segments[:, :-1], model=model)
    scores = score_hidden(params, hidden, tokens[:, 1:], mask[:, 1:], model=model)
    return Scores(*(jnp.pad(s, [(0, 0), (1, 0)]) for s in scores))

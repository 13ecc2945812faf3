"""Log-probability and entropy of given tokens, without ever holding logits of whole sequences.

`[*, V]` logits of a batch are most of an update's memory, so the unembedding stands inside a scan over chunks of rows
whose body is rematerialised: the backward pass recomputes one chunk's logits at a time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxreason.models.transformer import Transformer, run_completions, run_packed, run_prompts, unembed
from jaxreason.types import Packed, Params, Prompts

CHUNK_FLOATS = 2**24
"""Logits held at once: 64 MiB in float32."""


class Scores(NamedTuple):
    logps: Float[Array, "*batch"]
    """Log-probability (nats) of each token under the tempered distribution; 0 where masked."""
    entropy: Float[Array, "*batch"]
    """Entropy (nats) of the distribution each token was drawn from; 0 where masked."""


def score_hidden(
    params: Params,
    hidden: Float[Array, "*batch D"],
    tokens: Int[Array, "*batch"],
    mask: Bool[Array, "*batch"],
    *,
    model: Transformer,
    temperature: float = 1.0,
) -> Scores:
    """Scores `tokens` under softmax(unembed(hidden) / temperature), chunk by chunk, in float32."""
    rows, width = mask.size, hidden.shape[-1]
    # A NaN in padding must not reach a gradient: masking the result alone would multiply it by a zero cotangent.
    hidden = jnp.where(mask[..., None], hidden, 0).reshape(rows, width)
    chunk = max(1, min(rows, CHUNK_FLOATS // model.cfg.vocab))
    padded = -rows % chunk

    def chunked(x: Array) -> Array:
        return jnp.pad(x, [(0, padded)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, chunk, *x.shape[1:])

    @jax.checkpoint
    def score(hidden: Float[Array, "C D"], tokens: Int[Array, "C"]) -> Scores:
        logits = unembed(params, hidden, model=model) / temperature
        log_total = jax.nn.logsumexp(logits, axis=-1)
        logps = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0] - log_total
        entropy = log_total - jnp.sum(jax.nn.softmax(logits) * logits, axis=-1)
        return Scores(logps, entropy)

    scores = jax.lax.map(lambda xs: score(*xs), (chunked(hidden), chunked(tokens.reshape(rows))))
    return Scores(*(jnp.where(mask, s.reshape(-1)[:rows].reshape(mask.shape), 0.0) for s in scores))


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

"""Attention of completions over two sets of keys: those of their prompt, and their own.

The G completions of a prompt share its keys, stored once [P K H S]; each completion also has its own [P G K H U]. The
prompt's keys are never repeated G times, so there are two products and two sets of scores, in different axis orders:
one softmax over both would first copy one of them. Instead each set gets a softmax that is not yet divided by its
denominator (`attend_own`, `attend_prompt`), and `merge` combines the two, as FlashAttention combines blocks of keys
(arXiv 2205.14135).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxreason.types import Array


class KV(NamedTuple):
    """Keys and values of [P G K] heads, or of a prompt's [P K], in the order in which the two products read them: a
    cache in another order would be copied into this one at every step."""

    k: Float[Array, "*heads H time"]
    v: Float[Array, "*heads time H"]


TIME = KV._make((-1, -2))
"""The axis of time in each."""


def drop_unit_axes(kv: KV) -> KV:
    """Removes leading axes of size 1, as caches are stored: XLA's CPU products drop these axes of their operands, and a
    cache of another shape than the operand is copied at every step."""
    return KV(*(x.reshape(*(n for n in x.shape[:-2] if n > 1), *x.shape[-2:]) for x in kv))


def restore_unit_axes(kv: KV, prompts: int, group_size: int, heads: int = -1) -> KV:
    """Undoes `drop_unit_axes`: leading axes [P G K]. `heads` (K) is needed where there may be no keys at all."""
    return KV(*(x.reshape(prompts, group_size, heads, *x.shape[-2:]) for x in kv))


class AttentionMasks(NamedTuple):
    """True where a query may attend to a key."""

    own: Bool[Array, "#P T U"]
    prompt: Bool[Array, "P T S"] | None


class PartialAttention(NamedTuple):
    """Softmax attention over one set of keys before the division, so that sets can be merged; float32."""

    max_score: Float[Array, "P G K T R 1"]
    denominator: Float[Array, "P G K T R 1"]
    """Sum of exp(score - max_score)."""
    numerator: Float[Array, "P G K T R H"]
    """Sum of exp(score - max_score) * value."""


def attend(
    q: Float[Array, "P G T N H"], own: KV, prompt: KV | None, masks: AttentionMasks, scale: float
) -> Float[Array, "P G T N H"]:
    """Softmax attention over the completion's own keys [P G K H U] and the prompt's [P K H S], if any."""
    P, G, T, N, H = q.shape
    K = own.k.shape[2]
    q = (q * scale).reshape(P, G, T, K, N // K, H).swapaxes(2, 3)
    partial = attend_own(q, own, masks.own)
    if prompt is not None and masks.prompt is not None:
        partial = merge(partial, attend_prompt(q, prompt, masks.prompt))
    out = (partial.numerator / partial.denominator).astype(q.dtype)
    return out.swapaxes(2, 3).reshape(P, G, T, N, H)


def attend_own(q: Float[Array, "P G K T R H"], kv: KV, visible: Bool[Array, "#P T U"]) -> PartialAttention:
    scores = jnp.einsum("PGKTRH,PGKHU->PGKTRU", q, kv.k, preferred_element_type=jnp.float32)
    max_score, weights = _exp_scores(scores, visible)
    numerator = jnp.einsum("PGKTRU,PGKUH->PGKTRH", weights.astype(q.dtype), kv.v, preferred_element_type=jnp.float32)
    return PartialAttention(max_score, weights.sum(axis=-1, keepdims=True), numerator)


def attend_prompt(q: Float[Array, "P G K T R H"], kv: KV, visible: Bool[Array, "P T S"]) -> PartialAttention:
    """The queries of all G completions are rows of one product with the keys that they share."""
    q = q.swapaxes(1, 2)
    scores = jnp.einsum("PKGTRH,PKHS->PKGTRS", q, kv.k, preferred_element_type=jnp.float32)
    max_score, weights = _exp_scores(scores, visible)
    numerator = jnp.einsum("PKGTRS,PKSH->PKGTRH", weights.astype(q.dtype), kv.v, preferred_element_type=jnp.float32)
    partial = PartialAttention(max_score, weights.sum(axis=-1, keepdims=True), numerator)
    return PartialAttention(*(x.swapaxes(1, 2) for x in partial))


def _exp_scores(
    scores: Float[Array, "P A B T R U"], visible: Bool[Array, "#P T U"]
) -> tuple[Float[Array, "P A B T R 1"], Float[Array, "P A B T R U"]]:
    """Each row's largest score, and exp(score - largest), 0 at masked keys (but 1 in a row that sees none)."""
    lowest = jnp.finfo(jnp.float32).min
    scores = jnp.where(visible[:, None, None, :, None, :], scores, lowest)
    max_score = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True, initial=lowest))  # there may be no keys at all
    return max_score, jnp.exp(scores - max_score)


def merge(a: PartialAttention, b: PartialAttention) -> PartialAttention:
    """Attention over the keys of both sets. A set without a visible key has the lowest `max_score`: it weighs 0."""
    max_score = jnp.maximum(a.max_score, b.max_score)
    scale_a, scale_b = jnp.exp(a.max_score - max_score), jnp.exp(b.max_score - max_score)
    return PartialAttention(
        max_score, scale_a * a.denominator + scale_b * b.denominator, scale_a * a.numerator + scale_b * b.numerator
    )

"""Attention of completions over what they share and over what is their own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class KV(NamedTuple):
    """Of [P G K] heads, or a prompt's [P K]; laid out as the two batched products read them: a cache in another order
    is copied into this one every step."""

    k: Float[Array, "*heads H time"]
    v: Float[Array, "*heads time H"]


TIME = KV(k=-1, v=-2)
"""The axis of time in each."""


def drop_unit_axes(kv: KV) -> KV:
    """Without leading axes of size 1, as caches are kept: XLA's products on CPUs leave these out, and a cache that has
    another shape than the product's operand is copied every step."""
    return KV(*(x.reshape(*(n for n in x.shape[:-2] if n > 1), *x.shape[-2:]) for x in kv))


def restore_unit_axes(kv: KV, prompts: int, group_size: int, heads: int = -1) -> KV:
    """With all axes again; `heads` K must be named where there may be no key at all."""
    return KV(*(x.reshape(prompts, group_size, heads, *x.shape[-2:]) for x in kv))


class AttentionMasks(NamedTuple):
    """What the queries of one pass may see, as masks that are True where a key is visible."""

    own: Bool[Array, "#P T U"]
    context: Bool[Array, "P T S"] | None


class PartialAttention(NamedTuple):
    """Attention over some of the keys: a softmax not yet divided by its total, so that looks can be merged."""

    top: Float[Array, "*rows T R 1"]
    """Largest score."""
    total: Float[Array, "*rows T R 1"]
    """Sum of exp(score - top)."""
    out: Float[Array, "*rows T R H"]
    """Sum of exp(score - top) times value."""


def partial_attention(
    q: Float[Array, "*rows T R H"], kv: KV, visible: Bool[Array, "#P T U"], axes: str, keys: str
) -> PartialAttention:
    """`axes` names the leading axes of `q`, `keys` those of `kv`; softmax in float32."""
    scores = jnp.einsum(f"{axes}TRH,{keys}HU->{axes}TRU", q, kv.k, preferred_element_type=jnp.float32)
    least = jnp.finfo(jnp.float32).min
    scores = jnp.where(visible[:, None, None, :, None, :], scores, least)
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True, initial=least))  # there may be no key at all
    weights = jnp.exp(scores - top)
    out = jnp.einsum(
        f"{axes}TRU,{keys}UH->{axes}TRH", weights.astype(q.dtype), kv.v, preferred_element_type=jnp.float32
    )
    return PartialAttention(top, weights.sum(axis=-1, keepdims=True), out)


def merge(one: PartialAttention, other: PartialAttention) -> PartialAttention:
    """Attention over the keys of both; a look that saw nothing has the lowest top and weighs 0."""
    top = jnp.maximum(one.top, other.top)
    a, b = jnp.exp(one.top - top), jnp.exp(other.top - top)
    return PartialAttention(top, a * one.total + b * other.total, a * one.out + b * other.out)


def attend(
    q: Float[Array, "P G T N H"], own: KV, context: KV | None, sight: AttentionMasks, scale: float
) -> Float[Array, "P G T N H"]:
    """Softmax attention over the prompt's shared keys and the completion's own.

    `own` has keys of each [P G K]; `context`, if any, of each [P K], never repeated over G. The two are looked at apart
    and merged: their scores lie in memory in different orders, and one softmax over both would first copy one of them.
    """
    P, G, T, N, H = q.shape
    K = own.k.shape[2]
    q = (q * scale).reshape(P, G, T, K, N // K, H).swapaxes(2, 3)
    seen = partial_attention(q, own, sight.own, "PGK", "PGK")
    if context is not None:
        shared = partial_attention(q.swapaxes(1, 2), context, sight.context, "PKG", "PK")
        seen = merge(seen, PartialAttention(*(x.swapaxes(1, 2) for x in shared)))
    out = (seen.out / seen.total).astype(q.dtype)
    return out.swapaxes(2, 3).reshape(P, G, T, N, H)

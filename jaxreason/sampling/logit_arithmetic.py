"""Logit arithmetic: at decoding time, a small reasoner guides a large model.

ThinkLogit (Zhang et al., arXiv 2507.12759 and 2510.09354): from the raw logits of the target L, of a small reasoner S+
(the guide) and of the small model S- that the guide was made from (the base),

    z_t = z_t(L) + alpha_t (z_t(S+) - z_t(S-)),    alpha_t = 0 for the first W tokens of a completion, then alpha,

sampled like any model's logits. W = 0 is proxy-tuning (arXiv 2401.08565). Left out: the published code's stop after ten
equal tokens in a row, and its alternating strategies.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxreason.sampling.decoder import Decoder, DecodeState
from jaxreason.sampling.draw import Sampling, draw
from jaxreason.types import Array, Params, Prompts, Rollouts, TokenMap


class GuidedParams(NamedTuple):
    """The parameters of a `GuidedDecoder`."""

    target: Params
    guide: Params
    base: Params
    token_map: TokenMap | None = None
    """None: one vocabulary. Tokens beyond the guides' own keep the target's logits."""


class GuidedState(NamedTuple):
    """One thing of each of the three models: decode states, or their prompt or cache parts."""

    target: Any
    guide: Any
    base: Any


@dataclass(frozen=True)
class GuidedDecoder:
    """Three decoders as one; its parameters are `GuidedParams`."""

    target: Decoder
    guide: Decoder
    base: Decoder
    alpha: float = 1.0
    warmup: int = 0
    """W: the target alone chooses tokens 0 to W - 1 of a completion. The paper's 100 is for answers of thousands."""

    def prefill(self, params: GuidedParams, prompts: Prompts, group_size: int, cache_size: int):
        z, delta, state = self.prefill_parts(params, prompts, group_size, cache_size)
        return z + delta, state

    def decode(self, params: GuidedParams, tokens: Int[Array, "P G"], state: DecodeState):
        z, delta, state = self.decode_parts(params, tokens, state)
        return z + delta, state

    def prefill_parts(
        self, params: GuidedParams, prompts: Prompts, group_size: int, cache_size: int
    ) -> tuple[Float[Array, "P V"], Float[Array, "P V"], DecodeState]:
        """`prefill` before the sum: the target's logits, the scaled delta, the state."""
        guide_prompts = prompts.guide or prompts
        z, target = self.target.prefill(params.target, prompts, group_size, cache_size)
        z_guide, guide = self.guide.prefill(params.guide, guide_prompts, group_size, cache_size)
        z_base, base = self.base.prefill(params.base, guide_prompts, group_size, cache_size)
        delta = self._scaled_delta(z_guide, z_base, z.shape[-1], params.token_map, jnp.zeros(len(z), jnp.int32))
        return z, delta, _pack_states(GuidedState(target, guide, base))

    def decode_parts(
        self, params: GuidedParams, tokens: Int[Array, "P G"], state: DecodeState
    ) -> tuple[Float[Array, "P G V"], Float[Array, "P G V"], DecodeState]:
        """`decode` before the sum."""
        states, guide_tokens = _unpack_states(state), map_tokens(tokens, params.token_map)
        z, target = self.target.decode(params.target, tokens, states.target)
        z_guide, guide = self.guide.decode(params.guide, guide_tokens, states.guide)
        z_base, base = self.base.decode(params.base, guide_tokens, states.base)
        count = (state.slot + 1 - state.begin)[:, None]  # the number of the token that these logits are for
        delta = self._scaled_delta(z_guide, z_base, z.shape[-1], params.token_map, count)
        return z, delta, _pack_states(GuidedState(target, guide, base))

    def _scaled_delta(
        self,
        guide: Float[Array, "*rows A"],
        base: Float[Array, "*rows B"],
        vocab: int,
        token_map: TokenMap | None,
        count: Int[Array, "*#rows"],
    ) -> Float[Array, "*rows V"]:
        alpha = jnp.where(count < self.warmup, 0.0, self.alpha)
        return alpha[..., None] * logit_delta(guide, base, vocab, token_map)


def _pack_states(states: GuidedState) -> DecodeState:
    """One state of three decoders, which write to the same cache index."""
    prompt, cache = GuidedState(*(x.prompt for x in states)), GuidedState(*(x.cache for x in states))
    return states.target._replace(prompt=prompt, cache=cache)


def _unpack_states(state: DecodeState) -> GuidedState:
    parts = zip(state.prompt, state.cache, strict=True)
    return GuidedState(*(state._replace(prompt=prompt, cache=cache) for prompt, cache in parts))


class GuidanceTrace(NamedTuple):
    """The guides' effect on each token."""

    norm: Float[Array, "P G T"]
    """L2 norm of the scaled delta minus its mean; a constant changes no probability."""
    alone: Int[Array, "P G T"]
    """The target's own choice at this position, from the same uniform draw."""


def trace_guidance(
    params: GuidedParams, rollouts: Rollouts, *, keys: Key[jax.Array, "P G"], decoder: GuidedDecoder, sampling: Sampling
) -> GuidanceTrace:
    """Replays rollouts that `decoder` sampled with `keys`; undefined where they are masked."""
    P, G, T = rollouts.tokens.shape

    def trace(z: Array, delta: Array, t: Int[Array, ""]) -> GuidanceTrace:
        uniform = jax.vmap(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, t))))(keys)
        alone, _ = draw(jnp.broadcast_to(z, (P, G, z.shape[-1])), uniform, sampling)
        norm = jnp.linalg.norm(delta - delta.mean(axis=-1, keepdims=True), axis=-1)
        return GuidanceTrace(jnp.broadcast_to(norm, (P, G)), alone)

    def step(state: DecodeState, inputs: tuple[Array, Array]):
        tokens, t = inputs
        z, delta, state = decoder.decode_parts(params, tokens, state)
        return state, trace(z, delta, t)

    z, delta, state = decoder.prefill_parts(params, rollouts.prompts, G, T)
    first = trace(z[:, None], delta[:, None], jnp.int32(0))
    tokens = jnp.moveaxis(jnp.asarray(rollouts.tokens)[..., :-1], -1, 0)
    _, rest = jax.lax.scan(step, state, (tokens, jnp.arange(1, T)))
    return jax.tree.map(lambda x, xs: jnp.moveaxis(jnp.concatenate([x[None], xs]), 0, -1), first, rest)


def logit_delta(
    guide: Float[Array, "*rows A"], base: Float[Array, "*rows B"], vocab: int, token_map: TokenMap | None = None
) -> Float[Array, "*rows V"]:
    """z(S+) - z(S-) for each of the target's `vocab` tokens; 0 for those that guide or base do not have."""
    known = min(guide.shape[-1], base.shape[-1])
    difference = guide[..., :known] - base[..., :known]
    if token_map is None:
        shared = difference[..., :vocab]
        return jnp.pad(shared, [(0, 0)] * (shared.ndim - 1) + [(0, vocab - shared.shape[-1])])
    ids = token_map.ids
    return jnp.where((ids >= 0) & (ids < known), difference[..., jnp.clip(ids, 0, known - 1)], 0.0)


def map_tokens(tokens: Int[Array, "P G"], token_map: TokenMap | None) -> Int[Array, "P G"]:
    """The target's tokens as inputs of guide and base."""
    if token_map is None:
        return tokens  # an id beyond their embeddings reads the last one
    ids = token_map.ids[tokens]
    return jnp.where(ids >= 0, ids, token_map.unknown)

"""Logit arithmetic: while it decodes, a large model borrows the reasoning of a small one.

ThinkLogit (Zhang et al., arXiv 2507.12759 and 2510.09354): from the raw logits of the target L, of a small reasoner S+
(the guide) and of the small model S- that the guide was made from (the base),

    z_t = z_t(L) + alpha_t (z_t(S+) - z_t(S-)),    alpha_t = 0 for the first W tokens of a completion, then alpha

and from there on temperature and truncations as for any model. With W = 0 it is proxy-tuning (arXiv 2401.08565). Left
out: the published code's end after ten equal tokens in a row, and its alternating strategies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxreason.errors import InputError
from jaxreason.sampling.decoder import Decoder, DecodeState
from jaxreason.sampling.draw import Sampling, draw
from jaxreason.types import AnyPrompts, GuidedPrompts, Params, Prompts, Rollouts


class Translation(NamedTuple):
    """The target's tokens in the vocabulary of guide and base, where these have another one."""

    ids: Int[Array, "V"]
    """Of each of the target's tokens; -1 where there is none: its logit stays the target's."""
    unknown: Int[Array, ""]
    """What guide and base read in the place of a token that has none."""


def translation(ids: Sequence[int], unknown: int, vocabulary: int) -> Translation:
    """A `Translation` into a `vocabulary` of so many tokens."""
    wrong = next((i for i, image in enumerate(ids) if not -1 <= image < vocabulary), None)
    if wrong is not None or not 0 <= unknown < vocabulary:
        given = f"token {wrong} to {ids[wrong]}" if wrong is not None else f"unknown ones to {unknown}"
        raise InputError(f"the token map takes {given}, but the guides know {vocabulary} tokens: give their ids, or -1")
    return Translation(jnp.asarray(ids, jnp.int32), jnp.int32(unknown))


class GuidedParams(NamedTuple):
    """The parameters of a `GuidedDecoder`."""

    target: Params
    guide: Params
    base: Params
    translation: Translation | None = None


@dataclass(frozen=True)
class GuidedDecoder:
    """Three decoders as one. Takes `GuidedParams` parameters, and `Prompts` or `GuidedPrompts`.

    Without a `Translation` the tokens that all three know are guided, those beyond keep the target's logits.
    """

    target: Decoder
    guide: Decoder
    base: Decoder
    alpha: float = 1.0
    warmup: int = 100
    """W: the target alone chooses tokens 0 to W - 1 of every completion."""

    def prefill(self, params: GuidedParams, prompts: AnyPrompts, group_size: int, slots: int):
        z, moved, state = self.prefill_parts(params, prompts, group_size, slots)
        return z + moved, state

    def decode(self, params: GuidedParams, tokens: Int[Array, "P G"], state: DecodeState):
        z, moved, state = self.decode_parts(params, tokens, state)
        return z + moved, state

    def prefill_parts(self, params: GuidedParams, prompts: AnyPrompts, group_size: int, slots: int):
        """`prefill` before the sum: the target's logits, and what is added to them."""
        own = Prompts(prompts.tokens, prompts.mask)
        theirs = prompts.guides if isinstance(prompts, GuidedPrompts) else own
        decoders = self.target, self.guide, self.base
        parts = zip(decoders, params[:3], (own, theirs, theirs), strict=True)
        logits, states = zip(*(of.prefill(weights, x, group_size, slots) for of, weights, x in parts), strict=True)
        return *self._moved(*logits, params.translation, jnp.zeros(len(logits[0]), jnp.int32)), _together(states)

    def decode_parts(self, params: GuidedParams, tokens: Int[Array, "P G"], state: DecodeState):
        """`decode` before the sum."""
        theirs = map_tokens(tokens, params.translation)
        decoders, states = (self.target, self.guide, self.base), _apart(state)
        parts = zip(decoders, params[:3], (tokens, theirs, theirs), states, strict=True)
        logits, states = zip(*(of.decode(weights, x, own) for of, weights, x, own in parts), strict=True)
        count = state.slot + 1 - state.begin  # the number of the token that these logits are for
        return *self._moved(*logits, params.translation, count[:, None]), _together(states)

    def _moved(
        self,
        z: Float[Array, "*rows V"],
        guide: Float[Array, "*rows A"],
        base: Float[Array, "*rows B"],
        translation: Translation | None,
        count: Int[Array, "*#rows"],
    ) -> tuple[Float[Array, "*rows V"], Float[Array, "*rows V"]]:
        alpha = jnp.where(count < self.warmup, 0.0, self.alpha)
        return z, alpha[..., None] * logit_delta(guide, base, z.shape[-1], translation)


def _together(states: tuple[DecodeState, ...]) -> DecodeState:
    """One state of several models that write at the same slots."""
    return states[0]._replace(prompt=tuple(x.prompt for x in states), cache=tuple(x.cache for x in states))


def _apart(state: DecodeState) -> list[DecodeState]:
    return [state._replace(prompt=x, cache=y) for x, y in zip(state.prompt, state.cache, strict=True)]


class GuidanceTrace(NamedTuple):
    """What the guides did, token by token."""

    norm: Float[Array, "P G T"]
    """Length of what was added to the logits, less its mean, which changes nothing."""
    alone: Int[Array, "P G T"]
    """What the target alone would have chosen in this place, by the same draw."""


def trace_guidance(
    params: GuidedParams,
    rollouts: Rollouts,
    *,
    keys: Key[Array, "P G"],
    decoder: GuidedDecoder,
    sampling: Sampling,
) -> GuidanceTrace:
    """Follows rollouts that `decoder` sampled with `keys`; meaningless where they are masked."""
    P, G, T = rollouts.tokens.shape

    def seen(z: Array, moved: Array, t: Int[Array, ""]) -> GuidanceTrace:
        uniform = jax.vmap(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, t))))(keys)
        alone, _ = draw(jnp.broadcast_to(z, (P, G, z.shape[-1])), uniform, sampling)
        norm = jnp.linalg.norm(moved - moved.mean(axis=-1, keepdims=True), axis=-1)
        return GuidanceTrace(jnp.broadcast_to(norm, (P, G)), alone)

    def step(state: DecodeState, given: tuple[Array, Array]):
        token, t = given
        z, moved, state = decoder.decode_parts(params, token, state)
        return state, seen(z, moved, t)

    z, moved, state = decoder.prefill_parts(params, rollouts.prompts, G, T)
    first = seen(z[:, None], moved[:, None], jnp.int32(0))
    said = jnp.moveaxis(jnp.asarray(rollouts.tokens)[..., :-1], -1, 0)
    _, rest = jax.lax.scan(step, state, (said, jnp.arange(1, T)))
    return jax.tree.map(lambda x, xs: jnp.moveaxis(jnp.concatenate([x[None], xs]), 0, -1), first, rest)


def logit_delta(
    guide: Float[Array, "*rows A"],
    base: Float[Array, "*rows B"],
    vocabulary: int,
    translation: Translation | None = None,
) -> Float[Array, "*rows V"]:
    """z(S+) - z(S-) for each of the target's tokens; 0 for those that guide or base do not know."""
    known = min(guide.shape[-1], base.shape[-1])
    difference = guide[..., :known] - base[..., :known]
    if translation is None:
        shared = difference[..., :vocabulary]
        return jnp.pad(shared, [(0, 0)] * (shared.ndim - 1) + [(0, vocabulary - shared.shape[-1])])
    ids = translation.ids
    return jnp.where((ids >= 0) & (ids < known), difference[..., jnp.clip(ids, 0, known - 1)], 0.0)


def map_tokens(tokens: Int[Array, "P G"], translation: Translation | None) -> Int[Array, "P G"]:
    """What guide and base read of the target's tokens."""
    if translation is None:
        return tokens  # an id beyond their embeddings reads the last one
    ids = translation.ids[tokens]
    return jnp.where(ids >= 0, ids, translation.unknown)

"""The sampler as pure functions: `prefill_and_sample` draws every first token, `decode_chunk` goes on, `generate` is both in one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxreason.sampling.decoder import Decoder, DecodeState
from jaxreason.sampling.draw import Sampling, draw
from jaxreason.types import AnyPrompts, Params, Rollouts


class SamplerState(NamedTuple):
    """Completions on their way."""

    state: DecodeState
    keys: Key[Array, "P G"]
    last: Int[Array, "P G"]
    """The token drawn last."""
    alive: Bool[Array, "P G"]
    """False once a stop token or the length limit has ended the completion."""
    most: Int[Array, "P G"]
    """Tokens at which a completion is cut."""


class SampledTokens(NamedTuple):
    """The tokens of some steps."""

    tokens: Int[Array, "P G T"]
    mask: Bool[Array, "P G T"]
    """True where the completion was alive."""
    logps: Float[Array, "P G T"]


class StopCriteria(NamedTuple):
    """When a completion ends."""

    max_tokens: int
    stop_ids: tuple[int, ...]


def completion_keys(key: Key[Array, ""], indices: Int[Array | np.ndarray, "P"], group_size: int) -> Key[Array, "P G"]:
    """One key a row from the problem's own index, so a row's text does not depend on its neighbours or their order."""
    per_problem = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))
    return jax.vmap(lambda k: jax.random.split(k, group_size))(per_problem)


def generate(
    params: Params,
    prompts: AnyPrompts,
    *,
    keys: Key[Array, "P G"],
    decoder: Decoder,
    max_tokens: int,
    stop_ids: tuple[int, ...],
    sampling: Sampling,
) -> Rollouts:
    """Samples G completions of every prompt, until a stop token or `max_tokens`.

    Row (p, g) draws token t with `fold_in(keys[p, g], t)` and nothing else. The stop token belongs to the completion.
    """
    how = {"decoder": decoder, "sampling": sampling, "limits": StopCriteria(max_tokens, stop_ids)}
    steps = max(1, max_tokens - 1)
    most = jnp.full(len(keys), max_tokens, jnp.int32)
    live, first = prefill_and_sample(params, prompts, keys, most, slots=steps, **how)
    live, rest = decode_chunk(params, live, steps=steps, most=max_tokens - 1, **how)
    drawn = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1)[..., :max_tokens], first, rest)
    return Rollouts(prompts, *drawn, truncated=~stopped(live.last, stop_ids))


def prefill_and_sample(
    params: Params,
    prompts: AnyPrompts,
    keys: Key[Array, "P G"],
    most: Int[Array | np.ndarray, "P"],
    *,
    slots: int,
    decoder: Decoder,
    sampling: Sampling,
    limits: StopCriteria,
) -> tuple[SamplerState, SampledTokens]:
    """Reads the prompts and draws the first token of every completion, which is cut after `most` tokens."""
    P, G = keys.shape
    logits, state = decoder.prefill(params, prompts, G, slots)
    most = jnp.broadcast_to(jnp.minimum(most, limits.max_tokens)[:, None], (P, G))
    live = SamplerState(state, keys, jnp.zeros((P, G), jnp.int32), jnp.ones((P, G), bool), most)
    live, drawn = _record(live, jnp.broadcast_to(logits[:, None], (P, G, logits.shape[-1])), 0, sampling, limits)
    return live, jax.tree.map(lambda x: x[..., None], drawn)


def decode_chunk(
    params: Params,
    live: SamplerState,
    *,
    steps: int,
    most: Int[Array, ""] | int,
    min_alive: tuple[Int[Array, ""] | int, Int[Array, ""] | int] = (0, 0),
    decoder: Decoder,
    sampling: Sampling,
    limits: StopCriteria,
) -> tuple[SamplerState, SampledTokens]:
    """Draws up to `most` tokens of every completion, of the `steps` there is room for.

    Stops early when no more prompts and completions are alive than `min_alive` says.
    """
    P, G = live.alive.shape

    def going(carry: tuple[Int[Array, ""], SamplerState, SampledTokens]) -> Bool[Array, ""]:
        i, live, _ = carry
        return (i < most) & (live.alive.any(axis=1).sum() > min_alive[0]) & (live.alive.sum() > min_alive[1])

    def step(carry: tuple[Int[Array, ""], SamplerState, SampledTokens]):
        i, live, drawn = carry
        count = live.state.slot + 1 - live.state.begin  # tokens each completion has so far
        logits, state = decoder.decode(params, live.last, live.state)
        live, new = _record(live._replace(state=state), logits, count[:, None], sampling, limits)
        return i + 1, live, jax.tree.map(lambda x, y: x.at[..., i].set(y), drawn, new)

    shape = (P, G, steps)
    nothing = SampledTokens(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))
    _, live, drawn = jax.lax.while_loop(going, step, (jnp.zeros((), jnp.int32), live, nothing))
    return live, drawn


def _record(
    live: SamplerState,
    logits: Float[Array, "P G V"],
    count: Int[Array, "P 1"] | int,
    sampling: Sampling,
    limits: StopCriteria,
) -> tuple[SamplerState, SampledTokens]:
    """Draws token number `count` of every completion."""
    counts = jnp.broadcast_to(count, live.alive.shape)
    uniform = jax.vmap(jax.vmap(lambda key, t: jax.random.uniform(jax.random.fold_in(key, t))))(live.keys, counts)
    tokens, logps = draw(logits, uniform, sampling)
    tokens = jnp.where(live.alive, tokens, live.last)
    drawn = SampledTokens(jnp.where(live.alive, tokens, 0), live.alive, jnp.where(live.alive, logps, 0.0))
    alive = live.alive & ~stopped(tokens, limits.stop_ids) & (counts + 1 < live.most)
    return live._replace(last=tokens, alive=alive), drawn


def stopped(tokens: Int[Array, "*batch"], stop_ids: tuple[int, ...]) -> Bool[Array, "*batch"]:
    return jnp.isin(tokens, jnp.asarray(stop_ids, jnp.int32))

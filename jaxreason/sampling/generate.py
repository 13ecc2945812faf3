"""The sampler as pure functions: `prefill_and_sample` and `decode_chunk`; `generate` is both in one."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from jaxreason.sampling.decoder import Decoder, DecodeState
from jaxreason.sampling.draw import Sampling, draw
from jaxreason.types import Array, Params, Prompts, Rollouts


class SamplerState(NamedTuple):
    """Completions being decoded."""

    state: DecodeState
    keys: Key[jax.Array, "P G"]
    last: Int[jax.Array, "P G"]
    """The most recent token."""
    alive: Bool[jax.Array, "P G"]
    """False once a stop token or the length limit has ended the completion."""
    row_limits: Int[jax.Array, "P G"]
    """Maximum number of tokens of each completion."""


class SampledTokens(NamedTuple):
    """Tokens of T consecutive steps; 0 where masked."""

    tokens: Int[Array, "P G T"]
    mask: Bool[Array, "P G T"]
    """True where the completion was alive."""
    logps: Float[Array, "P G T"]
    """Log-probabilities (nats), as in `Rollouts`."""


class StopCriteria(NamedTuple):
    """When a completion ends."""

    max_tokens: int
    stop_ids: tuple[int, ...]


def completion_keys(key: Key[jax.Array, ""], indices: Int[Array, "P"], group_size: int) -> Key[jax.Array, "P G"]:
    """One key per completion, from the problem's own index: samples do not depend on the rest of the batch."""
    per_problem = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))
    return jax.vmap(lambda k: jax.random.split(k, group_size))(per_problem)


def generate(
    params: Params,
    prompts: Prompts,
    *,
    keys: Key[jax.Array, "P G"],
    decoder: Decoder,
    max_tokens: int,
    stop_ids: tuple[int, ...],
    sampling: Sampling,
) -> Rollouts:
    """Samples G completions of every prompt, until a stop token or `max_tokens`.

    Row (p, g) draws token t with `fold_in(keys[p, g], t)` and nothing else. The stop token belongs to the completion.
    """
    limits, steps = StopCriteria(max_tokens, stop_ids), max(1, max_tokens - 1)
    prefill = partial(prefill_and_sample, decoder=decoder, sampling=sampling, limits=limits)
    live, first = prefill(params, prompts, keys, jnp.full(len(keys), max_tokens, jnp.int32), cache_size=steps)
    decode = partial(decode_chunk, decoder=decoder, sampling=sampling, limits=limits)
    live, rest = decode(params, live, steps=steps, max_steps=max_tokens - 1)
    sampled = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1)[..., :max_tokens], first, rest)
    return Rollouts(prompts, *sampled, truncated=~is_stop_token(live.last, stop_ids))


def prefill_and_sample(
    params: Params,
    prompts: Prompts,
    keys: Key[jax.Array, "P G"],
    row_limits: Int[Array, "P"],
    *,
    cache_size: int,
    decoder: Decoder,
    sampling: Sampling,
    limits: StopCriteria,
) -> tuple[SamplerState, SampledTokens]:
    """Prefills, with a cache of `cache_size` tokens, and samples the first token of every completion.

    Completions of prompt p end after `row_limits[p]` tokens, or `limits.max_tokens` if that is fewer.
    """
    P, G = keys.shape
    logits, state = decoder.prefill(params, prompts, G, cache_size)
    row_limits = jnp.broadcast_to(jnp.minimum(row_limits, limits.max_tokens)[:, None], (P, G))
    live = SamplerState(state, keys, jnp.zeros((P, G), jnp.int32), jnp.ones((P, G), bool), row_limits)
    logits = jnp.broadcast_to(logits[:, None], (P, G, logits.shape[-1]))
    live, sampled = _sample_token(live, logits, 0, sampling, limits)
    return live, jax.tree.map(lambda x: x[..., None], sampled)


def decode_chunk(
    params: Params,
    live: SamplerState,
    *,
    steps: int,
    max_steps: Int[Array, ""] | int,
    min_alive: tuple[Int[Array, ""] | int, Int[Array, ""] | int] = (0, 0),
    decoder: Decoder,
    sampling: Sampling,
    limits: StopCriteria,
) -> tuple[SamplerState, SampledTokens]:
    """Samples up to `max_steps` further tokens of every completion, into arrays of `steps` tokens.

    Stops early once at most `min_alive` (prompts, completions) are alive.
    """

    def unfinished(carry: tuple[Int[Array, ""], SamplerState, SampledTokens]) -> Bool[Array, ""]:
        i, live, _ = carry
        return (i < max_steps) & (live.alive.any(axis=1).sum() > min_alive[0]) & (live.alive.sum() > min_alive[1])

    def step(carry: tuple[Int[Array, ""], SamplerState, SampledTokens]):
        i, live, sampled = carry
        count = live.state.slot + 1 - live.state.begin  # tokens each completion has so far
        logits, state = decoder.decode(params, live.last, live.state)
        live, new = _sample_token(live._replace(state=state), logits, count[:, None], sampling, limits)
        return i + 1, live, jax.tree.map(lambda x, y: x.at[..., i].set(y), sampled, new)

    shape = (*live.alive.shape, steps)
    empty = SampledTokens(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))
    _, live, sampled = jax.lax.while_loop(unfinished, step, (jnp.zeros((), jnp.int32), live, empty))
    return live, sampled


def _sample_token(
    live: SamplerState,
    logits: Float[Array, "P G V"],
    count: Int[Array, "P 1"] | int,
    sampling: Sampling,
    limits: StopCriteria,
) -> tuple[SamplerState, SampledTokens]:
    """Samples token number `count` of every completion."""
    counts = jnp.broadcast_to(count, live.alive.shape)
    uniform = jax.vmap(jax.vmap(lambda key, t: jax.random.uniform(jax.random.fold_in(key, t))))(live.keys, counts)
    tokens, logps = draw(logits, uniform, sampling)
    tokens = jnp.where(live.alive, tokens, live.last)
    sampled = SampledTokens(jnp.where(live.alive, tokens, 0), live.alive, jnp.where(live.alive, logps, 0.0))
    alive = live.alive & ~is_stop_token(tokens, limits.stop_ids) & (counts + 1 < live.row_limits)
    return live._replace(last=tokens, alive=alive), sampled


def is_stop_token(tokens: Int[Array, "*batch"], stop_ids: tuple[int, ...]) -> Bool[Array, "*batch"]:
    return jnp.isin(tokens, jnp.asarray(stop_ids, jnp.int32))

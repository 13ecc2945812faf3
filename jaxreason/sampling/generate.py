"""The sampler: one `while_loop` that stops when every row has ended."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxreason.sampling.decoder import Decoder, State
from jaxreason.sampling.draw import Sampling, draw
from jaxreason.types import Params, Prompts, Rollouts


class _Loop(NamedTuple):
    t: Int[Array, ""]
    tokens: Int[Array, "P G T"]
    mask: Bool[Array, "P G T"]
    logps: Float[Array, "P G T"]
    alive: Bool[Array, "P G"]
    state: State


def row_keys(key: Key[Array, ""], indices: Int[Array | np.ndarray, "P"], groups: int) -> Key[Array, "P G"]:
    """One key a row from the problem's own index, so a row's text does not depend on its neighbours or their order."""
    per_problem = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))
    return jax.vmap(lambda k: jax.random.split(k, groups))(per_problem)


def generate(
    params: Params,
    prompts: Prompts,
    *,
    keys: Key[Array, "P G"],
    decoder: Decoder,
    max_tokens: int,
    stop_ids: tuple[int, ...],
    sampling: Sampling,
) -> Rollouts:
    """Samples G completions of every prompt, until a stop token or `max_tokens`.

    Row (p, g) draws slot t with `fold_in(keys[p, g], t)` and nothing else. The stop token belongs to the completion.
    """
    stops = jnp.asarray(stop_ids, jnp.int32)

    def record(loop: _Loop, logits: Float[Array, "P G V"]) -> _Loop:
        fold = jax.vmap(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, loop.t))))
        tokens, logps = draw(logits, fold(keys), sampling)
        tokens = jnp.where(loop.alive, tokens, 0)
        return loop._replace(
            t=loop.t + 1,
            tokens=loop.tokens.at[..., loop.t].set(tokens),
            mask=loop.mask.at[..., loop.t].set(loop.alive),
            logps=loop.logps.at[..., loop.t].set(jnp.where(loop.alive, logps, 0.0)),
            alive=loop.alive & ~jnp.isin(tokens, stops),
        )

    def step(loop: _Loop) -> _Loop:
        logits, state = decoder.decode(params, loop.tokens[..., loop.t - 1], loop.state)
        return record(loop._replace(state=state), logits)

    P, G = keys.shape
    logits, state = decoder.prefill(params, prompts, G, max_tokens)
    shape = (P, G, max_tokens)
    loop = _Loop(
        t=jnp.zeros((), jnp.int32),
        tokens=jnp.zeros(shape, jnp.int32),
        mask=jnp.zeros(shape, bool),
        logps=jnp.zeros(shape, jnp.float32),
        alive=jnp.ones((P, G), bool),
        state=state,
    )
    loop = record(loop, jnp.broadcast_to(logits[:, None], (P, G, logits.shape[-1])))
    loop = jax.lax.while_loop(lambda loop: (loop.t < max_tokens) & loop.alive.any(), step, loop)
    return Rollouts(prompts, loop.tokens, loop.mask, loop.logps, truncated=loop.alive)

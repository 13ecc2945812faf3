"""The decoder protocol: two pure functions, and a state whose rows can be gathered and inserted.

Anything with these two methods samples: a Transformer, several fused by logit arithmetic, a test's Markov chain.
Implementations are frozen dataclasses: static arguments of jitted programs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxreason.models.attention import KV, TIME, drop_unit_axes, restore_unit_axes
from jaxreason.models.transformer import Transformer, init_caches, run_prompts, run_step, unembed
from jaxreason.types import Array, Params, Prompts


class DecodeState(NamedTuple):
    """State of all completions. They write to the same cache index, even if they began at different times."""

    prompt: Any
    """Pytree of [P ...] arrays that the completions of a prompt share."""
    cache: Any
    """Pytree of `KV`s with unit axes dropped (`drop_unit_axes`): each completion's own keys and values."""
    begin: Int[jax.Array, "P"]
    """Cache index of the first completion token."""
    slot: Int[jax.Array, ""]
    """Cache index of the next token."""


@runtime_checkable
class Decoder(Protocol):
    def prefill(
        self, params: Params, prompts: Prompts, group_size: int, cache_size: int
    ) -> tuple[Float[Array, "P V"], DecodeState]:
        """Logits of the first completion token; a state for `group_size` completions of up to `cache_size` tokens."""
        ...

    def decode(
        self, params: Params, tokens: Int[Array, "P G"], state: DecodeState
    ) -> tuple[Float[Array, "P G V"], DecodeState]:
        """Appends `tokens`; logits of the next token of every completion."""
        ...


@dataclass(frozen=True)
class TransformerDecoder:
    model: Transformer

    def prefill(self, params: Params, prompts: Prompts, group_size: int, cache_size: int):
        hidden, context = run_prompts(params, prompts, model=self.model)
        P = hidden.shape[0]
        logits = unembed(params, hidden[jnp.arange(P), context.lengths - 1], model=self.model)
        return logits, init_decode_state(context, init_caches(context, group_size, cache_size), P)

    def decode(self, params: Params, tokens: Int[Array, "P G"], state: DecodeState):
        hidden, cache = run_step(params, tokens, state.slot, state.begin, state.prompt, state.cache, model=self.model)
        return unembed(params, hidden, model=self.model), state._replace(cache=cache, slot=state.slot + 1)


def init_decode_state(prompt: Any, cache: Any, prompts: int) -> DecodeState:
    """A state whose completions all begin at cache index 0."""
    return DecodeState(prompt, cache, jnp.zeros(prompts, jnp.int32), jnp.zeros((), jnp.int32))


# --- continuous batching ---


def gather_rows(
    state: DecodeState, prompts: Int[Array, "Q"], members: Int[Array, "Q H"], group_size: int
) -> DecodeState:
    """Only the given completions: `members[q]`, of the `group_size` members, of row `prompts[q]`."""

    def gather(kv: KV) -> KV:
        full = restore_unit_axes(kv, len(state.begin), group_size)
        return drop_unit_axes(KV(*(x[prompts[:, None], members] for x in full)))

    prompt = jax.tree.map(lambda x: x[prompts], state.prompt)
    return DecodeState(prompt, _map_caches(gather, state.cache), state.begin[prompts], state.slot)


def insert_rows(state: DecodeState, new: DecodeState, rows: Int[Array, "Q"]) -> DecodeState:
    """Replaces `rows` by the freshly prefilled prompts of `new`; their completions begin at the current cache index."""
    prompt = jax.tree.map(lambda x, y: x.at[rows].set(y), state.prompt, new.prompt)
    return state._replace(prompt=prompt, begin=state.begin.at[rows].set(state.slot))


def resize_cache(state: DecodeState, first: Int[Array, ""] | int, cache_size: int) -> DecodeState:
    """A cache of `cache_size` tokens that begins with today's index `first`."""
    indices = first + jnp.arange(cache_size)  # clipped ones repeat the last entry and are written before they are read

    def resize(kv: KV) -> KV:
        return jax.tree.map(lambda x, time: jnp.take(x, indices, axis=time, mode="clip"), kv, TIME)

    return DecodeState(state.prompt, _map_caches(resize, state.cache), state.begin - first, state.slot - first)


def _map_caches(change: Callable[[KV], KV], cache: Any) -> Any:
    return jax.tree.map(change, cache, is_leaf=lambda x: isinstance(x, KV))

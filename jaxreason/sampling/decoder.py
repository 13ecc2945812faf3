"""What the sampler knows of a model: two pure functions, and a state whose parts it can move.

Anything with these two methods samples: a Transformer, several of them fused, a test's Markov chain. Implementations
are frozen dataclasses, so that a jitted caller can take them as static arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxreason.models.attention import KV, TIME, drop_unit_axes, restore_unit_axes
from jaxreason.models.transformer import Transformer, init_caches, run_prompts, run_step, unembed
from jaxreason.types import Params, Prompts


class DecodeState(NamedTuple):
    """What is known of every completion so far. All write at the same `slot`, whenever they began."""

    prompt: Any
    """A pytree of [P ...]: what the completions of a prompt share."""
    cache: Any
    """A pytree of `drop_unit_axes` `KV`s: what each completion has of its own, a slot a token."""
    begin: Int[Array, "P"]
    """The slot of each prompt's first completion token."""
    slot: Int[Array, ""]
    """Where the next token is written."""


@runtime_checkable
class Decoder(Protocol):
    def prefill(
        self, params: Params, prompts: Prompts, group_size: int, slots: int
    ) -> tuple[Float[Array, "P V"], DecodeState]:
        """Logits of the first completion token, and a state with room for `group_size` completions of `slots` tokens."""
        ...

    def decode(
        self, params: Params, tokens: Int[Array, "P G"], state: DecodeState
    ) -> tuple[Float[Array, "P G V"], DecodeState]:
        """Logits of the next token of every completion, after appending `tokens`."""
        ...


@dataclass(frozen=True)
class TransformerDecoder:
    model: Transformer

    def prefill(self, params: Params, prompts: Prompts, group_size: int, slots: int):
        hidden, context = run_prompts(params, prompts, model=self.model)
        P = hidden.shape[0]
        last = hidden[jnp.arange(P), context.lengths - 1]
        return unembed(params, last, model=self.model), init_decode_state(
            context, init_caches(context, group_size, slots), P
        )

    def decode(self, params: Params, tokens: Int[Array, "P G"], state: DecodeState):
        hidden, cache = run_step(params, tokens, state.slot, state.begin, state.prompt, state.cache, model=self.model)
        return unembed(params, hidden, model=self.model), state._replace(cache=cache, slot=state.slot + 1)


def init_decode_state(prompt: Any, cache: Any, prompts: int) -> DecodeState:
    """A state whose completions all begin at slot 0."""
    return DecodeState(prompt, cache, jnp.zeros(prompts, jnp.int32), jnp.zeros((), jnp.int32))


# --- completions leave, others join, the cache grows ---


def gather_rows(
    state: DecodeState, prompts: Int[Array, "Q"], members: Int[Array, "Q H"], group_size: int
) -> DecodeState:
    """A state of the given completions alone: `members[q]` of the `group_size` of prompt `prompts[q]`."""

    def taken(kv: KV) -> KV:
        return drop_unit_axes(
            KV(*(x[prompts[:, None], members] for x in restore_unit_axes(kv, len(state.begin), group_size)))
        )

    return DecodeState(
        jax.tree.map(lambda x: x[prompts], state.prompt),
        _each_cache(taken, state.cache),
        state.begin[prompts],
        state.slot,
    )


def insert_rows(state: DecodeState, newcomers: DecodeState, places: Int[Array, "Q"]) -> DecodeState:
    """The prompts of `newcomers`, of which nothing is decoded yet, take the `places` of others."""
    prompt = jax.tree.map(lambda x, new: x.at[places].set(new), state.prompt, newcomers.prompt)
    return state._replace(prompt=prompt, begin=state.begin.at[places].set(state.slot))


def resize_cache(state: DecodeState, first: Int[Array, ""], slots: int) -> DecodeState:
    """A cache of `slots` slots that forgets those before `first`."""
    kept = first + jnp.arange(slots)  # beyond the old cache the last slot is repeated, and written before it is read

    def moved(kv: KV) -> KV:
        return jax.tree.map(lambda x, time: jnp.take(x, kept, axis=time, mode="clip"), kv, TIME)

    return DecodeState(state.prompt, _each_cache(moved, state.cache), state.begin - first, state.slot - first)


def _each_cache(change: Callable[[KV], KV], cache: Any) -> Any:
    return jax.tree.map(change, cache, is_leaf=lambda x: isinstance(x, KV))

"""What the sampler knows of a model: two pure functions.

Anything with these two methods samples: a Transformer, several of them fused, a test's Markov chain. Implementations
are frozen dataclasses, so that a jitted caller can take them as static arguments.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxreason.models.transformer import KV, Context, Transformer, empty_caches, run_prompts, run_step, unembed
from jaxreason.types import Params, Prompts

State = Any
"""Any pytree; the sampler only hands it from one call to the next."""


@runtime_checkable
class Decoder(Protocol):
    def prefill(self, params: Params, prompts: Prompts, groups: int, length: int) -> tuple[Float[Array, "P V"], State]:
        """Logits of the first completion token, and a state with room for `groups` completions of `length` tokens."""
        ...

    def decode(self, params: Params, tokens: Int[Array, "P G"], state: State) -> tuple[Float[Array, "P G V"], State]:
        """Logits of the next token of every completion, after appending `tokens`."""
        ...


class TransformerState(NamedTuple):
    context: Context
    caches: tuple[KV, ...]
    """Per layer [P G K T H]."""
    slot: Int[Array, ""]
    """Where the next token is written, the same in every row."""


@dataclass(frozen=True)
class TransformerDecoder:
    model: Transformer

    def prefill(self, params: Params, prompts: Prompts, groups: int, length: int):
        hidden, context = run_prompts(params, prompts, model=self.model)
        last = hidden[jnp.arange(hidden.shape[0]), context.lengths - 1]
        state = TransformerState(context, empty_caches(context, groups, length), jnp.zeros((), jnp.int32))
        return unembed(params, last, model=self.model), state

    def decode(self, params: Params, tokens: Int[Array, "P G"], state: TransformerState):
        hidden, caches = run_step(params, tokens, state.slot, state.context, state.caches, model=self.model)
        return unembed(params, hidden, model=self.model), TransformerState(state.context, caches, state.slot + 1)

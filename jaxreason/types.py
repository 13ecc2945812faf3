"""The nouns that travel through the pipeline, and the axis legend every annotation and einsum uses.

    P prompts             G completions per prompt    B = P * G rows
    S prompt positions    T completion positions      L layers
    D model width         N query heads               K key/value heads
    R = N / K             H head width                F MLP width           V vocabulary

Completions of one prompt are an axis (`P G`), never an index column, so a completion cannot be attributed to
another prompt. Prompts are padded on the right; masks are boolean and named by what True means.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Bool, Float, Int

Array: TypeAlias = jax.Array | np.ndarray
"""An array on a device or, before the update, on the host."""

Params = Any
"""A pytree of arrays. A model's is a nested dictionary whose path joined with "." is the published tensor name
(or, after `fuse`, that of joined matrices)."""


def flatten_params(params: Params) -> dict[str, Any]:
    """Published name -> array."""
    return flatten_dict(params, sep=".")


class Prompts(NamedTuple):
    """Prompts of a batch, each once; `jaxreason.sampling.pad_prompts` makes them of token ids."""

    tokens: Int[Array, "P S"]
    """Token ids, padded on the right."""
    mask: Bool[Array, "P S"]
    """True on real tokens; every row has at least one."""
    guide: "Prompts | None" = None
    """The same prompts in the guides' vocabulary, if it differs from the target's (`GuidedDecoder`)."""

    @property
    def lengths(self) -> Int[Array, "P"]:
        return self.mask.sum(axis=-1)


class TokenMap(NamedTuple):
    """A target's tokens in the vocabulary of its guides (`jaxreason.text.make_token_map`)."""

    ids: Int[Array, "V"]
    """The guides' token for each of the target's tokens; -1 where there is none."""
    unknown: Int[Array, ""]
    """The guides' token that replaces those without one."""


class Rollouts(NamedTuple):
    """Sampled completions beside their prompts."""

    prompts: Prompts
    tokens: Int[Array, "P G T"]
    """Completion token ids."""
    mask: Bool[Array, "P G T"]
    """True where the policy chose the token, the stop token included."""
    logps: Float[Array, "P G T"]
    """Log-probability (nats) of each chosen token under the tempered, untruncated distribution; 0 where masked."""
    truncated: Bool[Array, "P G"]
    """True where the length limit, not a stop token, ended the completion."""

    @property
    def lengths(self) -> Int[Array, "P G"]:
        return self.mask.sum(axis=-1)


class PackedBatch(NamedTuple):
    """Rows that hold several texts each, one after the other."""

    tokens: Int[Array, "P T"]
    segments: Int[Array, "P T"]
    """Number of the text within its row, from 1; 0 is padding."""
    target_positions: Int[Array, "P M"]
    """Where in the row the tokens stand that are learned from what stands before them in their text, in order; filled
    up with 0: nothing predicts a text's first token."""

    @property
    def loss_mask(self) -> Bool[Array, "P M"]:
        """True where a token is learned."""
        return self.target_positions > 0

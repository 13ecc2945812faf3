"""From a loss per token to one number: a weight for every token, computed once from the whole batch's mask.

The loss is `sum(weights * token_loss)`. Because the weights are fixed before the batch is cut, the gradients of
micro-batches, or of devices, simply add up to the gradient of the whole. A batch without a token has weights zero.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxreason.types import Array


def sequence_mean(mask: Bool[Array, "P G T"]) -> Float[Array, "P G T"]:
    """Mean over each completion's tokens, then over completions: GRPO as published (arXiv 2402.03300)."""
    lengths = mask.sum(axis=-1, keepdims=True)
    sequences = (lengths > 0).sum()
    return mask / jnp.maximum(lengths, 1) / jnp.maximum(sequences, 1)


def token_mean(mask: Bool[Array, "P G T"]) -> Float[Array, "P G T"]:
    """Mean over all tokens of the batch: DAPO (arXiv 2503.14476, eq. 8)."""
    return mask / jnp.maximum(mask.sum(), 1).astype(jnp.float32)


def fixed_length(mask: Bool[Array, "P G T"]) -> Float[Array, "P G T"]:
    """Sum over tokens / (completions * T), T the generation limit: Dr. GRPO (arXiv 2503.20783)."""
    sequences = mask.any(axis=-1).sum()
    return mask / (jnp.maximum(sequences, 1) * mask.shape[-1]).astype(jnp.float32)


def token_sum(mask: Bool[Array, "P G T"]) -> Float[Array, "P G T"]:
    """Sum over each completion's tokens, mean over completions: a completion is one action (RLOO, arXiv 2402.14740)."""
    return mask / jnp.maximum(mask.any(axis=-1).sum(), 1).astype(jnp.float32)

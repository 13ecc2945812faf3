"""Rotary position embedding (RoFormer, arXiv 2104.09864) in the half-split layout of the published checkpoints."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxreason.types import Array


@dataclass(frozen=True)
class Rope:
    """`theta` is the base; `factor` stretches positions: all of them (linear) or the low frequencies only (llama3).

    llama3 scaling keeps wavelengths shorter than `original_context / high_freq_factor`, divides the frequencies of
    wavelengths longer than `original_context / low_freq_factor` by `factor`, and interpolates between.
    Source: Llama 3.1's published reference code and model card (factor 8, low 1, high 4, original context 8192).
    """

    theta: float = 10_000.0
    kind: str = "default"  # "default", "linear" or "llama3"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


def inverse_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Radians per position for each of the `head_dim / 2` rotated pairs, float64."""
    frequencies = rope.theta ** -(np.arange(0, head_dim, 2) / head_dim)
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        turns = rope.original_context * frequencies / (2 * np.pi)  # rotations within the original context
        keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        keep = np.clip(keep, 0.0, 1.0)
        return keep * frequencies + (1 - keep) * frequencies / rope.factor
    return frequencies


CosSin = tuple[Float[Array, "P T half"], Float[Array, "P T half"]]


def rotation(rope: Rope, positions: Int[Array, "P T"], head_dim: int) -> CosSin:
    """(cos, sin) of every angle; float32 because bfloat16 cannot count positions beyond 256."""
    frequencies = jnp.asarray(inverse_frequencies(rope, head_dim), jnp.float32)
    angles = positions[..., None].astype(jnp.float32) * frequencies[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "P G T heads H"], cos_sin: CosSin) -> Float[Array, "P G T heads H"]:
    """Rotates pairs (x[i], x[i + H/2])."""
    cos, sin = (a[:, None, :, None, :] for a in cos_sin)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)

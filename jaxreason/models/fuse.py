"""Weights laid out for decoding: matrices that multiply the same vector, joined into one.

A step with few rows reads every weight and computes next to nothing, so that starting a product is a cost of its own.
"""

import jax.numpy as jnp

from jaxreason.types import Params

JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def fuse(params: Params) -> Params:
    """A copy of the parameters with `JOINED` matrices, which the model takes as well; for inference, never saved."""
    return {name: _fuse(value) if isinstance(value, dict) else value for name, value in params.items()}


def _fuse(module: Params) -> Params:
    for joined, parts in JOINED.items():
        if parts[0] in module:
            leaves = module[parts[0]]
            rest = {name: value for name, value in module.items() if name not in parts}
            module = rest | {joined: {leaf: jnp.concatenate([module[part][leaf] for part in parts]) for leaf in leaves}}
    return fuse(module)

"""The fused parameter layout, which runs fastest: matrices that multiply the same vector are joined into one.

A decode step with few rows is bound by reading weights, so the overhead of each product counts; and the gradient of one
wide product copies less than those of several (an update takes a sixth less time on CPUs). The model takes both
layouts, and every optimiser here treats them alike.
"""

import jax.numpy as jnp
import numpy as np

from jaxreason.models.config import ModelConfig
from jaxreason.types import Params

JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def fuse(params: Params) -> Params:
    """The parameters in the fused layout. `JOINED` matrices are copies; other leaves are shared with `params`."""
    return {name: _fuse(value) if isinstance(value, dict) else value for name, value in params.items()}


def _fuse(module: Params) -> Params:
    for joined, parts in JOINED.items():
        if parts[0] in module:
            leaves = module[parts[0]]
            rest = {name: value for name, value in module.items() if name not in parts}
            module = rest | {joined: {leaf: jnp.concatenate([module[part][leaf] for part in parts]) for leaf in leaves}}
    return fuse(module)


def unfuse(params: Params, cfg: ModelConfig) -> Params:
    """The parameters in the published layout, from either layout."""
    heads = np.array([cfg.heads, cfg.kv_heads, cfg.kv_heads])
    outputs = {"qkv_proj": heads * cfg.head_dim, "gate_up_proj": np.array([cfg.intermediate_size] * 2)}
    plain = {}
    for name, value in params.items():
        if name in JOINED:
            split = {leaf: jnp.split(x, np.cumsum(outputs[name])[:-1]) for leaf, x in value.items()}
            plain |= {part: {leaf: xs[i] for leaf, xs in split.items()} for i, part in enumerate(JOINED[name])}
        else:
            plain[name] = unfuse(value, cfg) if isinstance(value, dict) else value
    return plain

"""Low-rank adapters: y = x Wᵀ + α/r (x Aᵀ) Bᵀ with W frozen: LoRA (Hu et al., arXiv 2106.09685).

Adapters are a parameter tree of their own, `{..., "q_proj": {"lora_A": {"weight": [r inputs]}, "lora_B": {"weight":
[outputs r]}}}`, named as PEFT publishes them. Together with the frozen parameters (`attach_scale`, `merge_trees`) they
are parameters that every function here takes; the frozen ones alone are the reference model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jaxtyping import Key

from jaxreason.errors import InputError
from jaxreason.types import Params, flatten_params

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Lora(NamedTuple):
    adapters: Params
    scale: float
    """α/r, or α/√r for rank-stabilised LoRA."""


def init_lora(
    key: Key[jax.Array, ""], params: Params, *, rank: int, alpha: float, targets: Sequence[str] = TARGETS
) -> Lora:
    """Adapters for those linear maps of `params` (unfused) that `targets` names.

    A is uniform within 1/√inputs, as in PEFT; B is zero, so the adapters change nothing at first.
    """
    flat = {}
    for name, weight in sorted(flatten_params(params).items()):
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and module.rpartition(".")[2] in targets:
            key, own = jax.random.split(key)
            outputs, inputs = weight.shape
            flat[f"{module}.lora_A.weight"] = (
                jax.random.uniform(own, (rank, inputs), minval=-1, maxval=1) * inputs**-0.5
            )
            flat[f"{module}.lora_B.weight"] = jnp.zeros((outputs, rank))
    if not flat:
        raise InputError(f"no parameter is a linear map called {', '.join(targets)}; choose among {', '.join(TARGETS)}")
    return Lora(unflatten_dict(flat, sep="."), alpha / rank)


def attach_scale(params: Params, lora: Lora) -> Params:
    """`params`, in either layout, with `lora_scale` added to each adapted module: the frozen part of a LoRA model."""
    names = {name.rsplit(".", 2)[0] for name in flatten_params(lora.adapters)}
    scale = jnp.float32(lora.scale)
    return merge_trees(params, unflatten_dict({f"{name}.lora_scale": scale for name in names}, sep="."))


def merge_trees(frozen: Params, trained: Params) -> Params:
    """One tree with the leaves of both; leaves of `trained` override those of `frozen`."""
    if not (isinstance(frozen, dict) and isinstance(trained, dict)):
        return trained
    return frozen | {name: merge_trees(frozen[name], x) if name in frozen else x for name, x in trained.items()}


def merge(params: Params, lora: Lora, *, sign: float = 1.0) -> Params:
    """Parameters W + α/r B A, of unfused `params`."""
    flat = flatten_params(params)
    adapters = flatten_params(lora.adapters)
    for name in adapters:
        module, is_a, _ = name.partition(".lora_A.")
        if is_a:
            if f"{module}.weight" not in flat:
                raise InputError(f"adapters change {module}, which the parameters lack; give those they were made for")
            a, b = adapters[f"{module}.lora_A.weight"], adapters[f"{module}.lora_B.weight"]
            flat[f"{module}.weight"] = flat[f"{module}.weight"] + sign * lora.scale * (b @ a)
    return unflatten_dict(flat, sep=".")


def unmerge(params: Params, lora: Lora) -> Params:
    """The parameters before `merge`, up to the rounding of one addition."""
    return merge(params, lora, sign=-1.0)

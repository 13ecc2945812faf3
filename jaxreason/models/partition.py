"""Sharding of parameters over a mesh: path rules for every family.

As in Megatron (arXiv 1909.08053), maps into heads and into the MLP are sharded by output over `tensor`, maps out of
them by input; as in ZeRO (arXiv 1910.02054), the other axis of each matrix is sharded over `fsdp`. Rules match the end
of a path, so gradients and optimiser moments get the shardings of their parameters.
"""

import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxreason.distributed.mesh import MESH_AXES, nearest_sizes, num_batch_shards, put_global
from jaxreason.errors import InputError
from jaxreason.models.config import ModelConfig
from jaxreason.models.fuse import JOINED

Rules = dict[str, P]
"""Regular expression that matches the end of a path -> sharding of such a parameter. Scalars are replicated."""

ADAPTERS: Rules = {r"\.lora_[AB]\.weight": P()}
"""Low-rank adapters are small, so they are replicated."""
REWARD_HEAD: Rules = {r"score\.weight": P()}


def partition_rules(cfg: ModelConfig) -> Rules:
    """Rules for the parameters of a model, in either layout (see `fuse`)."""
    rules = {
        r"embed_tokens\.weight": P("tensor", "fsdp"),
        r"\.(q|k|v|qkv|gate|up|gate_up)_proj\.weight": P("tensor", "fsdp"),
        r"\.(o|down)_proj\.weight": P("fsdp", "tensor"),
        r"norm\.weight": P(),
    }
    if cfg.qkv_bias:
        rules[r"\.(q|k|v|qkv)_proj\.bias"] = P("tensor")
    if cfg.reward:
        rules |= REWARD_HEAD
    elif not cfg.tie_embeddings:
        rules[r"lm_head\.weight"] = P("tensor", "fsdp")
    return rules


def shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
    """The sharding of each leaf of a tree of parameters, or of a tree that contains such trees (optimiser states).

    Raises ValueError if a leaf with axes matches no rule, or if a rule matches no leaf.
    """
    unused = set(rules)

    def leaf_sharding(path: tuple, leaf: Any) -> NamedSharding:
        if not leaf.shape:
            return NamedSharding(mesh, P())
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        matching = [rule for rule in rules if re.search(f"{rule}$", name)]
        if len(matching) != 1:
            raise ValueError(f"parameter {name} matches {len(matching)} rules of {list(rules)}: it must match one")
        unused.discard(matching[0])
        joined = name.rpartition(".")[0].rpartition(".")[2] in JOINED
        if joined and mesh.shape["tensor"] > 1:
            raise ValueError(f"parameter {name} is fused, `tensor` cannot shard it: give unfused parameters (`unfuse`)")
        return NamedSharding(mesh, rules[matching[0]])

    tree = jax.tree_util.tree_map_with_path(leaf_sharding, tree)
    if unused:
        raise ValueError(f"rule {min(unused)!r} matches no parameter: give the rules of this model")
    return tree


def shard_params(tree: Any, mesh: Mesh | None, rules: Rules) -> Any:
    """Moves a tree that every host holds in full to the mesh."""
    return tree if mesh is None else jax.tree.map(put_global, tree, shardings(tree, mesh, rules))


def constrain_params(tree: Any, mesh: Mesh | None, rules: Rules) -> Any:
    """Within a jitted function: constrains the tree to the rules' shardings."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, shardings(tree, mesh, rules))


def check_mesh(mesh: Mesh, cfg: ModelConfig, name: str, batch: int) -> None:
    """Raises InputError if the mesh does not divide the model's dimensions, or `batch`, the value of flag `name`."""
    sizes = tuple(mesh.shape[axis] for axis in MESH_AXES)
    if wrong := indivisible_dim(cfg, sizes):
        nearest = nearest_sizes(sizes, mesh.size, lambda each: not indivisible_dim(cfg, each))
        instead = f"give --mesh {_text(nearest)}" if nearest else f"no mesh of {mesh.size} devices does"
        raise InputError(f"--mesh {_text(sizes)}: {wrong}; {instead}")
    shards = num_batch_shards(mesh)
    if batch % shards:
        flag, larger = f"--{name.replace('_', '-')}", -(-batch // shards) * shards
        raise InputError(
            f"{flag} {batch} does not divide over data x fsdp = {shards} of mesh {_text(sizes)}: give {larger}"
        )


def indivisible_dim(cfg: ModelConfig, sizes: tuple[int, ...]) -> str:
    """The first model dimension that the mesh axes `sizes` do not divide, as part of a message; "" if there is none."""
    _, fsdp, tensor = sizes
    dims = [("key heads", cfg.kv_heads, "tensor", tensor), ("MLP width", cfg.intermediate_size, "tensor", tensor)]
    dims += [("vocabulary", cfg.vocab, "tensor", tensor), ("hidden size", cfg.hidden_size, "fsdp", fsdp)]
    wrong = (f"{axis} = {n} does not divide the {name}, {size}" for name, size, axis, n in dims if size % n)
    return next(wrong, "")


def _text(sizes: tuple[int, ...]) -> str:
    return ",".join(map(str, sizes))

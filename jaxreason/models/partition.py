"""Which parameter lies where on a mesh: a table of path rules for every family, and what is placed by it.

As in Megatron (arXiv 1909.08053) maps into heads and into the MLP are cut by output over `tensor`, maps out of them
by input; as in ZeRO (arXiv 1910.02054) matrices are cut along their other axis over `fsdp`. Rules find parameters by
path, so that gradients and an optimiser's moments lie where their parameters do.
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
"""Regular expression that a path ends with -> where such a parameter lies. What has no axes lies everywhere."""

ADAPTERS: Rules = {r"\.lora_[AB]\.weight": P()}
"""Low-rank adapters are small."""
REWARD_HEAD: Rules = {r"score\.weight": P()}


def partition_rules(cfg: ModelConfig) -> Rules:
    """Of the parameters of a model of this configuration, in either layout (see `fuse`)."""
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
    """Where each leaf of a tree of parameters lies, or of anything that holds such trees.

    A leaf with axes that no rule matches is an error, and so is a rule that matches nothing.
    """
    unused = set(rules)

    def found(path: tuple, leaf: Any) -> NamedSharding:
        if not leaf.shape:
            return NamedSharding(mesh, P())
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        matching = [rule for rule in rules if re.search(f"{rule}$", name)]
        if len(matching) != 1:
            raise ValueError(f"parameter {name} matches {len(matching)} rules of {list(rules)}: it takes exactly one")
        unused.discard(matching[0])
        joined = name.rpartition(".")[0].rpartition(".")[2] in JOINED
        if joined and mesh.shape["tensor"] > 1:
            raise ValueError(f"parameter {name} joins matrices that `tensor` cuts apart: give them unjoined (`unfuse`)")
        return NamedSharding(mesh, rules[matching[0]])

    places = jax.tree_util.tree_map_with_path(found, tree)
    if unused:
        raise ValueError(f"rule {min(unused)!r} matches no parameter: give the rules of this model")
    return places


def shard_params(tree: Any, mesh: Mesh | None, rules: Rules) -> Any:
    """The tree on the mesh; every host has all of it."""
    return tree if mesh is None else jax.tree.map(put_global, tree, shardings(tree, mesh, rules))


def constrain_params(tree: Any, mesh: Mesh | None, rules: Rules) -> Any:
    """Within a jitted function: the tree lies where the rules say."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, shardings(tree, mesh, rules))


def check_mesh(mesh: Mesh, cfg: ModelConfig, name: str, batch: int) -> None:
    """Refuses a mesh that cuts what cannot be cut: heads, widths, the vocabulary, or the batch that a flag sets."""
    sizes = tuple(mesh.shape[axis] for axis in MESH_AXES)
    wrong = indivisible_dim(cfg, sizes)
    if wrong:
        nearest = nearest_sizes(sizes, mesh.size, lambda each: not indivisible_dim(cfg, each))
        instead = f"give --mesh {_text(nearest)}" if nearest else f"no mesh of {mesh.size} devices does"
        raise InputError(f"--mesh {_text(sizes)}: {wrong}; {instead}")
    over = num_batch_shards(mesh)
    if batch % over:
        flag, more = f"--{name.replace('_', '-')}", -(-batch // over) * over
        raise InputError(
            f"{flag} {batch} does not divide over data x fsdp = {over} of mesh {_text(sizes)}: give {more}"
        )


def indivisible_dim(cfg: ModelConfig, sizes: tuple[int, ...]) -> str:
    """What the mesh does not divide, in words; empty if there is nothing."""
    _, fsdp, tensor = sizes
    cut = {"key heads": (cfg.kv_heads, "tensor", tensor), "MLP width": (cfg.intermediate_size, "tensor", tensor)}
    cut |= {"vocabulary": (cfg.vocab, "tensor", tensor), "width": (cfg.hidden_size, "fsdp", fsdp)}
    bad = (f"{axis} = {n} does not divide the {name}, {size}" for name, (size, axis, n) in cut.items() if size % n)
    return next(bad, "")


def _text(sizes: tuple[int, ...]) -> str:
    return ",".join(map(str, sizes))

"""One decoder for all families, as pure functions over a parameter dictionary that mirrors the published names.

A prompt exists once. `run_prompts` computes its keys and values, `[P K S H]` per layer; the `G` completions of the
prompt attend to them and to themselves, in the sampler (`run_step`) and in the gradient (`run_completions`).
Prompts are padded on the right and completion slot `t` sits at position `prompt_length + t` in every row, so
causality between slots is causality between positions.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from jaxreason.distributed.mesh import BATCH_AXES, constrain
from jaxreason.models.attention import KV, TIME, AttentionMasks, attend, drop_unit_axes, restore_unit_axes
from jaxreason.models.config import ModelConfig
from jaxreason.models.fuse import JOINED
from jaxreason.models.rope import CosSin, rotate, rotation
from jaxreason.types import Params, Prompts

INIT = nn.initializers.normal(0.02)


class PromptKV(NamedTuple):
    """What completions need of their prompt: one key/value pair a layer, shared by the whole group."""

    kv: tuple[KV, ...]
    """Of S keys each."""
    mask: Bool[Array, "P S"]
    """True on real prompt tokens."""

    @property
    def lengths(self) -> Int[Array, "P"]:
        return self.mask.sum(axis=-1)


class Weight(nn.Module):
    """A bare `weight`, for embeddings."""

    shape: tuple[int, ...]

    def setup(self):
        self.weight = self.param("weight", INIT, self.shape)


class Linear(nn.Module):
    """y = x Wᵀ (+ b), the weight stored [outputs, inputs] as published; plus its adapter, where there is one."""

    outputs: int
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        weight = self.param("weight", INIT, (self.outputs, x.shape[-1]))
        y = jnp.einsum("...i,oi->...o", x, weight.astype(x.dtype))
        if self.bias:
            y += self.param("bias", nn.initializers.zeros, (self.outputs,)).astype(x.dtype)
        return y + _low_rank(self, self.outputs, x) if self.has_variable("params", "lora_A") else y


class Adapter(nn.Module):
    """What the adapter of one of several joined maps adds to its outputs."""

    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return _low_rank(self, self.outputs, x)


def _low_rank(module: nn.Module, outputs: int, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """s (x Aᵀ) Bᵀ: see `jaxreason.models.lora`."""
    rank = module.variables["params"]["lora_A"]["weight"].shape[0]
    scale = module.param("lora_scale", nn.initializers.ones, ()).astype(x.dtype)
    return Linear(outputs, name="lora_B")(scale * Linear(rank, name="lora_A")(x))


def linears(
    module: nn.Module, joined: str, outputs: tuple[int, ...], x: Float[Array, "*batch inputs"], bias: bool = False
) -> list[Array]:
    """The linear maps of `x` that `JOINED` names: in one product where the parameters are laid out so."""
    if module.has_variable("params", joined):
        ys = jnp.split(Linear(sum(outputs), bias, name=joined)(x), np.cumsum(outputs)[:-1], axis=-1)
        adapted = [module.has_variable("params", name) for name in JOINED[joined]]
        parts = zip(ys, JOINED[joined], outputs, adapted, strict=True)
        return [y + Adapter(size, name=name)(x) if also else y for y, name, size, also in parts]
    return [Linear(size, bias, name=name)(x) for name, size in zip(JOINED[joined], outputs, strict=True)]


class RMSNorm(nn.Module):
    """x / rms(x) * (offset + weight), in float32: squares of bfloat16 activations lose the small ones."""

    eps: float
    offset: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        weight = self.param("weight", nn.initializers.constant(1.0 - self.offset), x.shape[-1:])
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * (self.offset + weight)).astype(x.dtype)


class Attention(nn.Module):
    cfg: ModelConfig

    @nn.compact
    def __call__(
        self, x: Array, cos_sin: CosSin, sight: AttentionMasks, context: KV | None, cache: KV | None, slot: Array | None
    ) -> tuple[Array, KV]:
        cfg = self.cfg
        heads = cfg.heads, cfg.kv_heads, cfg.kv_heads
        qkv = linears(self, "qkv_proj", tuple(n * cfg.head_dim for n in heads), x, bias=cfg.qkv_bias)
        q, k, v = (y.reshape(*x.shape[:-1], n, cfg.head_dim) for y, n in zip(qkv, heads, strict=True))
        if cfg.qk_norm:
            q = RMSNorm(cfg.norm_eps, cfg.norm_offset, name="q_norm")(q)
            k = RMSNorm(cfg.norm_eps, cfg.norm_offset, name="k_norm")(k)
        q, k = rotate(q, cos_sin), rotate(k, cos_sin)
        own = KV(jnp.einsum("PGTKH->PGKHT", k), jnp.einsum("PGTKH->PGKTH", v))
        if cache is not None:
            write = jax.lax.dynamic_update_slice_in_dim
            own = jax.tree.map(
                lambda old, new, time: write(old, new, slot, axis=time), cache, drop_unit_axes(own), TIME
            )
        scale = cfg.query_scale if cfg.query_scale is not None else cfg.head_dim**-0.5
        y = attend(q, restore_unit_axes(own, *q.shape[:2], cfg.kv_heads), context, sight, scale)
        return Linear(cfg.hidden_size, name="o_proj")(y.reshape(*x.shape[:-1], cfg.heads * cfg.head_dim)), own


class MLP(nn.Module):
    cfg: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        act = {"silu": nn.silu, "gelu_tanh": nn.gelu}[self.cfg.activation]  # nn.gelu is the tanh form by default
        gate, up = linears(self, "gate_up_proj", (self.cfg.intermediate_size,) * 2, x)
        return Linear(self.cfg.hidden_size, name="down_proj")(act(gate) * up)


class Block(nn.Module):
    cfg: ModelConfig

    @nn.compact
    def __call__(self, x: Array, *attention_inputs) -> tuple[Array, KV]:
        def norm(name: str, x: Array) -> Array:
            return RMSNorm(self.cfg.norm_eps, self.cfg.norm_offset, name=name)(x)

        sandwich = self.cfg.sandwich_norms
        y, own = Attention(self.cfg, name="self_attn")(norm("input_layernorm", x), *attention_inputs)
        x += norm("post_attention_layernorm", y) if sandwich else y
        y = norm("pre_feedforward_layernorm" if sandwich else "post_attention_layernorm", x)
        y = MLP(self.cfg, name="mlp")(y)
        x += norm("post_feedforward_layernorm", y) if sandwich else y
        return x, own


class Layers(nn.Module):
    """The blocks, unrolled: a scan over stacked weights would copy each layer's weights out every step."""

    cfg: ModelConfig
    remat: bool

    @nn.compact
    def __call__(self, x, positions, sight, sight_sliding, context, caches, slot):
        cfg, own = self.cfg, []
        rope = rotation(cfg.rope, positions, cfg.head_dim)
        local = rotation(cfg.local_rope, positions, cfg.head_dim) if any(cfg.sliding) else rope
        block = nn.remat(Block) if self.remat else Block
        for i in range(cfg.layers):
            slides = bool(cfg.sliding) and cfg.sliding[i]
            x, kv = block(cfg, name=str(i))(
                x,
                local if slides else rope,
                sight_sliding if slides else sight,
                None if context is None else context[i],
                None if caches is None else caches[i],
                slot,
            )
            own.append(kv)
        return x, tuple(own)


def embed(table: Float[Array, "V D"], tokens: Int[Array, "P G T"], mesh: Mesh | None) -> Float[Array, "P G T D"]:
    """Rows of the embedding. Each device along `fsdp` looks up its columns for all of them, which then change places:
    neither the table nor its gradient is whole anywhere. (A sampler's table is, and its tokens come one at a time.)"""
    if mesh is None or tokens.shape[-1] == 1:
        return constrain(table, mesh, "tensor")[tokens]
    columns = constrain(table, mesh, "tensor", "fsdp")[constrain(tokens, mesh, "data")]
    return constrain(columns, mesh, "data", None, None, "fsdp")


class Model(nn.Module):
    cfg: ModelConfig
    dtype: Any
    remat: bool
    mesh: Mesh | None

    @nn.compact
    def __call__(self, tokens, *layer_inputs):
        table = Weight((self.cfg.vocab, self.cfg.hidden_size), name="embed_tokens").weight
        x = embed(table, tokens, self.mesh).astype(self.dtype)
        x = constrain(x * jnp.asarray(self.cfg.embed_scale, self.dtype), self.mesh, BATCH_AXES)
        x, own = Layers(self.cfg, self.remat, name="layers")(x, *layer_inputs)
        return RMSNorm(self.cfg.norm_eps, self.cfg.norm_offset, name="norm")(x), own


class Transformer(nn.Module):
    """Tokens [P G T] to hidden states [P G T D] and this pass's keys and values; used only through `apply`.

    With a `mesh` it says once where hidden states lie, and the compiler carries that on: `distributed.mesh`."""

    cfg: ModelConfig
    dtype: Any = jnp.float32
    remat: bool = False
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, tokens, *layer_inputs):
        if self.cfg.reward:
            Weight((1, self.cfg.hidden_size), name="score").weight  # noqa: B018 -- declares the parameter
        elif not self.cfg.tie_embeddings:
            Weight((self.cfg.vocab, self.cfg.hidden_size), name="lm_head").weight  # noqa: B018 -- declares the parameter
        return Model(self.cfg, self.dtype, self.remat, self.mesh, name="model")(tokens, *layer_inputs)


def init(key: Key[Array, ""], cfg: ModelConfig) -> Params:
    """Random float32 parameters: normal(0.02) matrices, unit norms, zero biases."""
    prompts = Prompts(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))
    model = Transformer(cfg)
    return model.init(key, *_inputs(model, prompts.tokens[:, None], jnp.arange(1)))["params"]


def param_shapes(cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The published name and shape of every parameter."""
    tree = jax.eval_shape(lambda: init(jax.random.key(0), cfg))
    return {name: leaf.shape for name, leaf in flatten_dict(tree, sep=".").items()}


def unembedding(params: Params, *, model: Transformer) -> Float[Array, "V D"]:
    return (params["model"]["embed_tokens"] if model.cfg.tie_embeddings else params["lm_head"])["weight"]


def compute_logits(hidden: Float[Array, "*batch D"], weight: Float[Array, "C D"]) -> Float[Array, "*batch C"]:
    """Accumulated and returned in float32: rounded to bfloat16, neighbours of the maximum would tie."""
    return jnp.einsum("...d,vd->...v", hidden, weight.astype(hidden.dtype), preferred_element_type=jnp.float32)


def unembed(params: Params, hidden: Float[Array, "*batch D"], *, model: Transformer) -> Float[Array, "*batch V"]:
    return compute_logits(hidden, unembedding(params, model=model))


def run_prompts(params: Params, prompts: Prompts, *, model: Transformer) -> tuple[Float[Array, "P S D"], PromptKV]:
    """Hidden states of every prompt position, and the context its completions attend to."""
    slots = jnp.arange(prompts.tokens.shape[1])
    inputs = _inputs(model, prompts.tokens[:, None], slots)
    hidden, own = model.apply({"params": params}, *inputs)
    kv = tuple(KV(k=layer.k[:, 0], v=layer.v[:, 0]) for layer in own)
    return hidden[:, 0], PromptKV(kv, prompts.mask)


def run_completions(
    params: Params, tokens: Int[Array, "P G T"], context: PromptKV, *, model: Transformer
) -> Float[Array, "P G T D"]:
    """Hidden states of whole completions; position t predicts token t + 1."""
    slots = jnp.arange(tokens.shape[-1])
    return model.apply({"params": params}, *_inputs(model, tokens, slots, context))[0]


def run_packed(
    params: Params, tokens: Int[Array, "P T"], segments: Int[Array, "P T"], *, model: Transformer
) -> Float[Array, "P T D"]:
    """Hidden states of rows that hold several texts each, told apart by `segments`.

    A token sees its own text up to itself, and positions restart with every text: each gets what it would get alone.
    """
    slots = jnp.arange(tokens.shape[-1])
    begins = segments != jnp.pad(segments[:, :-1], [(0, 0), (1, 0)], constant_values=-1)
    positions = slots - jax.lax.cummax(jnp.where(begins, slots, 0), axis=1)
    same = (segments[:, :, None] == segments[:, None, :]) & (slots <= slots[:, None])

    def sight(window: int) -> AttentionMasks:
        return AttentionMasks(same & (slots[:, None] - slots < window), None)

    sliding = sight(model.cfg.window) if any(model.cfg.sliding) else None
    inputs = tokens[:, None], positions, AttentionMasks(same, None), sliding, None, None, None
    return model.apply({"params": params}, *inputs)[0][:, 0]


def run_step(
    params: Params,
    tokens: Int[Array, "P G"],
    slot: Int[Array, ""],
    begin: Int[Array, "P"],
    context: PromptKV,
    caches: tuple[KV, ...],
    *,
    model: Transformer,
) -> tuple[Float[Array, "P G D"], tuple[KV, ...]]:
    """One token of every completion, written at the same `slot` of every row's cache.

    `begin` is the slot of each prompt's first completion token; what lies before it is of others, and not seen.
    """
    inputs = _inputs(model, tokens[..., None], slot[None], context, caches, begin)
    hidden, caches = model.apply({"params": params}, *inputs)
    return hidden[:, :, 0], caches


def init_caches(context: PromptKV, group_size: int, length: int) -> tuple[KV, ...]:
    """Room for `group_size` completions of `length` tokens for each prompt of `context`, one KV a layer."""

    def room(x: Float[Array, "P ..."], time: int) -> Float[Array, "P G ..."]:
        shape = [len(x), group_size, *x.shape[1:]]
        shape[time] = length
        return jnp.zeros(shape, x.dtype)

    return tuple(drop_unit_axes(jax.tree.map(room, kv, TIME)) for kv in context.kv)


def _inputs(
    model: Transformer,
    tokens: Int[Array, "P G T"],
    slots: Int[Array, "T"],
    context: PromptKV | None = None,
    caches: tuple[KV, ...] | None = None,
    begin: Int[Array, "P"] | None = None,
) -> tuple:
    """The positional inputs of `Transformer`: positions and masks follow from slots and prompt lengths alone."""
    P, _, T = tokens.shape
    start = jnp.zeros((P,), jnp.int32) if context is None else context.lengths
    if begin is not None:
        start -= begin
    positions = start[:, None] + slots
    keys = jnp.arange(T if caches is None else caches[0].k.shape[TIME.k])

    def sight(window: int | None) -> AttentionMasks:
        own = (keys <= slots[:, None])[None]
        if begin is not None:
            own &= keys >= begin[:, None, None]
        if window is not None:
            own &= slots[:, None] - keys < window
        if context is None:
            return AttentionMasks(own, None)
        seen = jnp.broadcast_to(context.mask[:, None], (P, T, context.mask.shape[1]))
        if window is not None:
            seen &= positions[:, :, None] - jnp.arange(context.mask.shape[1]) < window
        return AttentionMasks(own, seen)

    sliding = sight(model.cfg.window) if any(model.cfg.sliding) else None
    kv = None if context is None else context.kv
    slot = None if caches is None else slots[0]
    return tokens, positions, sight(None), sliding, kv, caches, slot

"""One decoder for all families, as pure functions over a parameter dictionary that mirrors the published names.

A prompt is computed once. `run_prompts` returns its keys and values (`PromptKV`), and its G completions attend to these
and to their own, in the sampler (`run_step`) and in the gradient (`run_completions`). Prompts are padded on the right;
a completion's token in slot `t` has position `prompt_length + t`, so slots are causal exactly where positions are.

Top to bottom: building blocks, `Transformer`, parameters, then the four ways to run it, each of which makes the
`LayerInputs` (positions, masks, caches) that all layers share.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, Key

from jaxreason.distributed.mesh import BATCH_AXES, constrain
from jaxreason.models.attention import KV, TIME, AttentionMasks, attend, drop_unit_axes, restore_unit_axes
from jaxreason.models.config import ModelConfig
from jaxreason.models.fuse import JOINED
from jaxreason.models.rope import CosSin, rotate, rotation
from jaxreason.types import Array, Params, Prompts, flatten_params

INIT = nn.initializers.normal(0.02)


class PromptKV(NamedTuple):
    """Keys and values of prompts, shared by all completions of each."""

    kv: tuple[KV, ...]
    """[P K] heads of S keys, one `KV` a layer."""
    mask: Bool[Array, "P S"]
    """True on real prompt tokens."""

    @property
    def lengths(self) -> Int[Array, "P"]:
        return self.mask.sum(axis=-1)


class LayerInputs(NamedTuple):
    """What every layer reads besides the hidden states."""

    positions: Int[Array, "P T"]
    masks: AttentionMasks
    sliding_masks: AttentionMasks | None
    """Masks of sliding-window layers; None where there are none."""
    prompt_kv: tuple[KV, ...] | None
    """Keys and values of the prompts, one `KV` a layer; None while prompts themselves are run."""
    caches: tuple[KV, ...] | None = None
    """The completions' earlier keys and values, one `KV` a layer; None where a pass computes all of them."""
    slot: Int[Array, ""] | None = None
    """Where in the caches this pass writes."""


class Weight(nn.Module):
    """A bare `weight`, for embeddings."""

    shape: tuple[int, ...]

    def setup(self):
        self.weight = self.param("weight", INIT, self.shape)


def _along_last(vector: Float[Array, "n"], x: Array) -> Array:
    """[1 ... 1 n], as many axes as `x` has."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


class Linear(nn.Module):
    """y = x Wᵀ (+ b), the weight stored [outputs, inputs] as published; adds the LoRA adapter if there is one."""

    outputs: int
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        weight = self.param("weight", INIT, (self.outputs, x.shape[-1]))
        y = jnp.einsum("...i,oi->...o", x, weight.astype(x.dtype))
        if self.bias:
            y += _along_last(self.param("bias", nn.initializers.zeros, (self.outputs,)).astype(x.dtype), y)
        return y + _low_rank(self, self.outputs, x) if self.has_variable("params", "lora_A") else y


class Adapter(nn.Module):
    """The LoRA adapter of one of several joined maps."""

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
    """The linear maps of `x` that `JOINED[joined]` names; one product if the parameters are joined (see `fuse`)."""
    names = JOINED[joined]
    if not module.has_variable("params", joined):
        return [Linear(size, bias, name=name)(x) for name, size in zip(names, outputs, strict=True)]
    ys = jnp.split(Linear(sum(outputs), bias, name=joined)(x), np.cumsum(outputs)[:-1], axis=-1)
    return [
        y + Adapter(size, name=name)(x) if module.has_variable("params", name) else y
        for y, name, size in zip(ys, names, outputs, strict=True)
    ]


class RMSNorm(nn.Module):
    """x / rms(x) * (offset + weight), in float32: squares of bfloat16 activations lose the small ones."""

    eps: float
    offset: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        weight = self.param("weight", nn.initializers.constant(1.0 - self.offset), x.shape[-1:])
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * _along_last(self.offset + weight, x32)).astype(x.dtype)


class Attention(nn.Module):
    cfg: ModelConfig

    @nn.compact
    def __call__(
        self, x: Array, cos_sin: CosSin, masks: AttentionMasks, prompt: KV | None, cache: KV | None, slot: Array | None
    ) -> tuple[Array, KV]:
        """Returns the outputs, and the completions' keys and values: the cache with this pass's written into it."""
        cfg = self.cfg
        heads = cfg.heads, cfg.kv_heads, cfg.kv_heads
        qkv = linears(self, "qkv_proj", tuple(n * cfg.head_dim for n in heads), x, bias=cfg.qkv_bias)
        q, k, v = (y.reshape(*x.shape[:-1], n, cfg.head_dim) for y, n in zip(qkv, heads, strict=True))
        if cfg.qk_norm:
            q = RMSNorm(cfg.norm_eps, cfg.norm_offset, name="q_norm")(q)
            k = RMSNorm(cfg.norm_eps, cfg.norm_offset, name="k_norm")(k)
        q, k = rotate(q, cos_sin), rotate(k, cos_sin)
        own = KV(jnp.einsum("PGTKH->PGKHT", k), jnp.einsum("PGTKH->PGKTH", v))
        if cache is not None and slot is not None:
            write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot)
            own = jax.tree.map(lambda old, new, time: write(old, new, axis=time), cache, drop_unit_axes(own), TIME)
        P, G = x.shape[:2]
        y = attend(q, restore_unit_axes(own, P, G, cfg.kv_heads), prompt, masks, cfg.attention_scale)
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
    def __call__(self, x: Float[Array, "P G T D"], inputs: LayerInputs) -> tuple[Array, tuple[KV, ...]]:
        cfg, own = self.cfg, []
        rope = rotation(cfg.rope, inputs.positions, cfg.head_dim)
        local_rope = rotation(cfg.local_rope, inputs.positions, cfg.head_dim) if any(cfg.sliding) else rope
        block = nn.remat(Block) if self.remat else Block
        for i in range(cfg.layers):
            sliding = bool(cfg.sliding) and cfg.sliding[i]
            x, kv = block(cfg, name=str(i))(
                x,
                local_rope if sliding else rope,
                inputs.sliding_masks if sliding else inputs.masks,
                None if inputs.prompt_kv is None else inputs.prompt_kv[i],
                None if inputs.caches is None else inputs.caches[i],
                inputs.slot,
            )
            own.append(kv)
        return x, tuple(own)


def embed(table: Float[Array, "V D"], tokens: Int[Array, "P G T"], mesh: Mesh | None) -> Float[Array, "P G T D"]:
    """Rows of the embedding table. Along `fsdp` each device looks up its own columns for all tokens, and an all-to-all
    exchanges columns for rows: no device holds the whole table or its gradient. (In the sampler, which gives one token
    at a time, the table is not sharded over `fsdp`.)"""
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
    def __call__(self, tokens: Int[Array, "P G T"], inputs: LayerInputs) -> tuple[Array, tuple[KV, ...]]:
        table = Weight((self.cfg.vocab, self.cfg.hidden_size), name="embed_tokens").weight
        x = embed(table, tokens, self.mesh).astype(self.dtype)
        x = constrain(x * jnp.asarray(self.cfg.embed_scale, self.dtype), self.mesh, BATCH_AXES)
        x, own = Layers(self.cfg, self.remat, name="layers")(x, inputs)
        return RMSNorm(self.cfg.norm_eps, self.cfg.norm_offset, name="norm")(x), own


class Transformer(nn.Module):
    """Tokens [P G T] to hidden states [P G T D] and the completions' keys and values; used only through `apply`.

    With a `mesh`, the embedding's output is constrained to `BATCH_AXES`; the compiler propagates this sharding."""

    cfg: ModelConfig
    dtype: Any = jnp.float32
    remat: bool = False
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, tokens: Int[Array, "P G T"], inputs: LayerInputs) -> tuple[Array, tuple[KV, ...]]:
        if self.cfg.reward:
            Weight((1, self.cfg.hidden_size), name="score").weight  # noqa: B018 -- declares the parameter
        elif not self.cfg.tie_embeddings:
            Weight((self.cfg.vocab, self.cfg.hidden_size), name="lm_head").weight  # noqa: B018 -- declares the parameter
        return Model(self.cfg, self.dtype, self.remat, self.mesh, name="model")(tokens, inputs)


def init(key: Key[jax.Array, ""], cfg: ModelConfig) -> Params:
    """Random float32 parameters: normal(0.02) matrices, unit norms, zero biases."""
    tokens = jnp.zeros((1, 1, 1), jnp.int32)
    return Transformer(cfg).init(key, tokens, _layer_inputs(cfg, tokens, jnp.arange(1)))["params"]


def param_shapes(cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The published name and shape of every parameter."""
    tree = jax.eval_shape(lambda: init(jax.random.key(0), cfg))
    return {name: leaf.shape for name, leaf in flatten_params(tree).items()}


def unembedding(params: Params, *, model: Transformer) -> Float[Array, "V D"]:
    return (params["model"]["embed_tokens"] if model.cfg.tie_embeddings else params["lm_head"])["weight"]


def compute_logits(hidden: Float[Array, "*batch D"], weight: Float[Array, "V D"]) -> Float[Array, "*batch V"]:
    """Accumulated and returned in float32: rounded to bfloat16, neighbours of the maximum would tie."""
    return jnp.einsum("...d,vd->...v", hidden, weight.astype(hidden.dtype), preferred_element_type=jnp.float32)


def unembed(params: Params, hidden: Float[Array, "*batch D"], *, model: Transformer) -> Float[Array, "*batch V"]:
    return compute_logits(hidden, unembedding(params, model=model))


def run_prompts(params: Params, prompts: Prompts, *, model: Transformer) -> tuple[Float[Array, "P S D"], PromptKV]:
    """Hidden states of every prompt position, and the keys and values that the completions attend to."""
    tokens = prompts.tokens[:, None]
    hidden, own = _apply(model, params, tokens, _layer_inputs(model.cfg, tokens, jnp.arange(tokens.shape[-1])))
    kv = tuple(KV(k=layer.k[:, 0], v=layer.v[:, 0]) for layer in own)
    return hidden[:, 0], PromptKV(kv, prompts.mask)


def run_completions(
    params: Params, tokens: Int[Array, "P G T"], prompt_kv: PromptKV, *, model: Transformer
) -> Float[Array, "P G T D"]:
    """Hidden states of whole completions; position t predicts token t + 1."""
    inputs = _layer_inputs(model.cfg, tokens, jnp.arange(tokens.shape[-1]), prompt_kv)
    return _apply(model, params, tokens, inputs)[0]


def run_packed(
    params: Params, tokens: Int[Array, "P T"], segments: Int[Array, "P T"], *, model: Transformer
) -> Float[Array, "P T D"]:
    """Hidden states of packed rows: several documents each, numbered by `segments`.

    A token attends to its own document only, and positions restart with each: documents do not see each other.
    """
    slots = jnp.arange(tokens.shape[-1])[None]
    starts = segments != jnp.pad(segments[:, :-1], [(0, 0), (1, 0)], constant_values=-1)
    positions = slots - jax.lax.cummax(jnp.where(starts, slots, 0), axis=1)
    age = slots[:, :, None] - slots[:, None, :]
    causal = (segments[:, :, None] == segments[:, None, :]) & (age >= 0)
    sliding = causal & (age < model.cfg.window)
    sliding_masks = AttentionMasks(sliding, None) if any(model.cfg.sliding) else None
    inputs = LayerInputs(positions, AttentionMasks(causal, None), sliding_masks, None)
    return _apply(model, params, tokens[:, None], inputs)[0][:, 0]


def run_step(
    params: Params,
    tokens: Int[Array, "P G"],
    slot: Int[Array, ""],
    begin: Int[Array, "P"],
    prompt_kv: PromptKV,
    caches: tuple[KV, ...],
    *,
    model: Transformer,
) -> tuple[Float[Array, "P G D"], tuple[KV, ...]]:
    """One token of every completion, written at the same `slot` of every row's cache.

    `begin` is the slot of each prompt's first completion token; earlier slots hold other completions and are masked.
    """
    inputs = _layer_inputs(model.cfg, tokens[..., None], slot[None], prompt_kv, caches, begin)
    hidden, caches = _apply(model, params, tokens[..., None], inputs)
    return hidden[:, :, 0], caches


def init_caches(prompt_kv: PromptKV, group_size: int, length: int) -> tuple[KV, ...]:
    """Zeros for `group_size` completions of `length` tokens of each prompt, one KV a layer."""

    def zeros(x: Float[Array, "P ..."], time: int) -> Float[Array, "P G ..."]:
        shape = [len(x), group_size, *x.shape[1:]]
        shape[time] = length
        return jnp.zeros(shape, x.dtype)

    return tuple(drop_unit_axes(jax.tree.map(zeros, kv, TIME)) for kv in prompt_kv.kv)


def _apply(
    model: Transformer, params: Params, tokens: Int[Array, "P G T"], inputs: LayerInputs
) -> tuple[Float[Array, "P G T D"], tuple[KV, ...]]:
    return cast(tuple[Array, tuple[KV, ...]], model.apply({"params": params}, tokens, inputs))


def _layer_inputs(
    cfg: ModelConfig,
    tokens: Int[Array, "P G T"],
    slots: Int[Array, "T"],
    prompt_kv: PromptKV | None = None,
    caches: tuple[KV, ...] | None = None,
    begin: Int[Array, "P"] | None = None,
) -> LayerInputs:
    """Positions and masks follow from slots and prompt lengths alone."""
    P, _, T = tokens.shape
    start = jnp.zeros((P,), jnp.int32) if prompt_kv is None else prompt_kv.lengths
    if begin is not None:
        start -= begin
    positions = start[:, None] + slots[None]
    key_slots = jnp.arange(T if caches is None else caches[0].k.shape[TIME.k])[None, None]
    age = slots[None, :, None] - key_slots

    def masks(window: int | None) -> AttentionMasks:
        own = age >= 0
        if begin is not None:
            own &= key_slots >= begin[:, None, None]
        if window is not None:
            own &= age < window
        if prompt_kv is None:
            return AttentionMasks(own, None)
        S = prompt_kv.mask.shape[1]
        prompt = jnp.broadcast_to(prompt_kv.mask[:, None], (P, T, S))
        if window is not None:
            prompt &= positions[:, :, None] - jnp.arange(S)[None, None] < window
        return AttentionMasks(own, prompt)

    return LayerInputs(
        positions,
        masks(None),
        masks(cfg.window) if any(cfg.sliding) else None,
        None if prompt_kv is None else prompt_kv.kv,
        caches,
        None if caches is None else slots[0],
    )

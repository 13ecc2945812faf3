"""Published names and values of GGUF tensors: llama.cpp renames all of them and changes the values of two kinds."""

import numpy as np

from jaxreason.models.config import ModelConfig

MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Published module, without its layer prefix -> GGUF name."""

SANDWICH_MODULES = MODULES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
"""With norms on both sides of a block, `post_attention_layernorm` is another norm."""


def gguf_name(published: str, config: ModelConfig) -> str:
    """The GGUF name of a parameter: model.layers.3.mlp.up_proj.weight is blk.3.ffn_up.weight."""
    module, kind = published.rsplit(".", 1)
    prefix = ""
    if module.startswith("model.layers."):
        layer, module = module.removeprefix("model.layers.").split(".", 1)
        prefix = f"blk.{layer}."
    modules = SANDWICH_MODULES if config.sandwich_norms else MODULES
    return f"{prefix}{modules[module]}.{kind}"


def as_published(name: str, values: np.ndarray, config: ModelConfig) -> np.ndarray:
    """The published values of parameter `name`, from those that llama.cpp's converter wrote."""
    if config.family == "llama" and ".self_attn.q_proj." in name:
        return _split_halves(values, config.heads)
    if config.family == "llama" and ".self_attn.k_proj." in name:
        return _split_halves(values, config.kv_heads)
    if config.norm_offset and name.endswith("norm.weight"):
        return values - np.float32(config.norm_offset)  # GGUF stores offset + weight
    return values


def _split_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Reorders rows: rotated pairs are neighbours in llama.cpp's Llama, and half a head apart as published."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)

"""One tiny random model per family variant, with sizes that tell every axis apart and weights that tell every tensor.

Weights come from PCG64's raw bits, a stream that numpy promises never to change, so a file of logits needs no file
of weights beside it.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from flax.traverse_util import unflatten_dict

from jaxreason.models.config import ModelConfig
from jaxreason.models.rope import Rope
from jaxreason.models.transformer import param_shapes
from jaxreason.text.tokenizer import HuggingFace, Tokenizer
from jaxreason.types import Params, Prompts

SIZES = {
    "vocab": 30,
    "hidden_size": 24,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "intermediate_size": 40,
    "max_seq_len": 64,
}

TINY = {
    "llama": ModelConfig(family="llama", **SIZES, head_dim=6, norm_eps=1e-5),
    "llama3": ModelConfig(
        family="llama",
        **SIZES,
        head_dim=6,
        norm_eps=1e-5,
        tie_embeddings=False,
        rope=Rope(theta=100.0, kind="llama3", factor=8.0, original_context=12),  # keeps one frequency, blends one
    ),
    "qwen2": ModelConfig(family="qwen2", **SIZES, head_dim=6, qkv_bias=True, rope=Rope(theta=1000.0)),
    "qwen3": ModelConfig(family="qwen3", **SIZES, head_dim=10, qk_norm=True, rope=Rope(theta=1000.0)),
    "gemma3": ModelConfig(
        family="gemma3_text",
        **SIZES | {"layers": 3},
        head_dim=10,
        rope=Rope(theta=1000.0),
        local_rope=Rope(theta=50.0),
        window=5,
        sliding=(True, False, True),
        query_scale=14**-0.5,  # not the head width's
        embed_scale=24**0.5,
        qk_norm=True,
        norm_offset=1.0,
        sandwich_norms=True,
        activation="gelu_tanh",
    ),
}


SOME = [pytest.param(name, marks=() if name in ("llama", "gemma3") else pytest.mark.slow) for name in TINY]
"""Every family; but for the plainest and the one with most of its own, marked slow."""


def tiny_params(cfg: ModelConfig, seed: int) -> Params:
    """Activations of order one, logits of order three, norms and biases far from where training starts them."""
    stream = np.random.PCG64(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        x = np.sqrt(3) * (stream.random_raw(int(np.prod(shape))) / 2.0**63 - 1).reshape(shape)  # variance one
        if name.endswith("norm.weight"):
            return 1 - cfg.norm_offset + 0.3 * x
        if name.endswith("bias"):
            return 0.5 * x
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            return 3 / np.sqrt(cfg.hidden_size) * x
        return 1.5 / np.sqrt(shape[1]) * x

    shapes = sorted(param_shapes(cfg).items())
    return unflatten_dict({name: jnp.array(draw(name, shape), jnp.float32) for name, shape in shapes}, sep=".")


def tiny_batch(cfg: ModelConfig, seed: int) -> tuple[Prompts, np.ndarray]:
    """Two prompts of 11 and 4 tokens and two completions of 5 for each, the padding as wild as the rest."""
    tokens = (np.random.PCG64(seed + 1000).random_raw(2 * 11 + 2 * 2 * 5) % cfg.vocab).astype(np.int32)
    mask = np.arange(11) < np.array([[11], [4]])
    return Prompts(jnp.array(tokens[:22].reshape(2, 11)), jnp.array(mask)), tokens[22:].reshape(2, 2, 5)


def tiny_tokenizer() -> Tokenizer:
    """Thirty words: every tiny model's vocabulary."""
    words = {word: i for i, word in enumerate(["<eos>", *(f"w{i}" for i in range(1, SIZES["vocab"]))])}
    backend = HuggingFace(tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w1")))
    return Tokenizer(backend, {"eos_token": "<eos>"}, add_bos=False, stop_ids=(0,))

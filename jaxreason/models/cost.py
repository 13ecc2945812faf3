"""Floating-point operations (FLOPs) from a configuration and numbers of tokens.

For each token, 2 a parameter plus 4 * layers * heads * head_dim a key (Kaplan et al., arXiv 2001.08361, table 1).
"""

from functools import lru_cache
from math import prod

from jaxreason.models.config import ModelConfig
from jaxreason.models.transformer import param_shapes

BACKWARD = 2
"""A backward pass costs two forward passes: one product for the inputs' gradient, one for the weights'."""


@lru_cache
def matrix_parameters(cfg: ModelConfig) -> int:
    """Number of parameters in matrices that multiply every token: the unembedding included, the embedding not."""
    matrices = {name: shape for name, shape in param_shapes(cfg).items() if len(shape) == 2}
    if not cfg.tie_embeddings:
        del matrices["model.embed_tokens.weight"]
    return sum(map(prod, matrices.values()))


def forward_flops(cfg: ModelConfig, tokens: int, keys: float | int) -> float | int:
    """A forward pass of `tokens` tokens, each of which attends to `keys` keys on average."""
    return tokens * (2 * matrix_parameters(cfg) + 4 * cfg.layers * cfg.heads * cfg.head_dim * keys)


def training_flops(cfg: ModelConfig, tokens: int, keys: float | int) -> float | int:
    """One forward and one backward pass; rematerialisation is not counted."""
    return (1 + BACKWARD) * forward_flops(cfg, tokens, keys)


def prefill_flops(cfg: ModelConfig, prompt: int) -> float | int:
    """A prompt of `prompt` tokens, of which only the last is unembedded."""
    return forward_flops(cfg, prompt, (prompt + 1) / 2) - 2 * (prompt - 1) * cfg.vocab * cfg.hidden_size


def decode_flops(cfg: ModelConfig, prompt: int, completion: int) -> float | int:
    """A completion of `completion` tokens after `prompt` tokens. The last token is sampled, but never fed back."""
    return forward_flops(cfg, completion - 1, prompt + completion / 2)

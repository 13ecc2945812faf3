"""What a number of tokens costs in arithmetic, from the configuration alone.

2 floating-point operations a parameter and token, and 4 a layer, head, head's width and key (Kaplan et al.,
arXiv 2001.08361, table 1).
"""

from functools import lru_cache
from math import prod

from jaxreason.models.config import ModelConfig
from jaxreason.models.transformer import param_shapes

BACKWARD = 2
"""A backward pass costs two forward passes: one product for the inputs' gradient, one for the weights'."""


@lru_cache
def matrix_parameters(cfg: ModelConfig) -> int:
    """Parameters that every token is multiplied with: all matrices, the unembedding included, an embedding not."""
    matrices = {name: shape for name, shape in param_shapes(cfg).items() if len(shape) == 2}
    if not cfg.tie_embeddings:
        del matrices["model.embed_tokens.weight"]
    return sum(map(prod, matrices.values()))


def forward_flops(cfg: ModelConfig, tokens: int, keys: float | int) -> float | int:
    """Of reading or writing `tokens` tokens that each look at `keys` others, on average."""
    return tokens * (2 * matrix_parameters(cfg) + 4 * cfg.layers * cfg.heads * cfg.head_dim * keys)


def training_flops(cfg: ModelConfig, tokens: int, keys: float | int) -> float | int:
    """The same, forward and backward, each once: what is computed again to save memory is not counted."""
    return (1 + BACKWARD) * forward_flops(cfg, tokens, keys)


def prefill_flops(cfg: ModelConfig, prompt: int) -> float | int:
    """Of reading a prompt of so many tokens: only its last one meets the unembedding."""
    return forward_flops(cfg, prompt, (prompt + 1) / 2) - 2 * (prompt - 1) * cfg.vocab * cfg.hidden_size


def decode_flops(cfg: ModelConfig, prompt: int, completion: int) -> float | int:
    """Of writing a completion after a prompt of so many tokens; its last token is drawn, but never read."""
    return forward_flops(cfg, completion - 1, prompt + completion / 2)

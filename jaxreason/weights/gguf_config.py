"""A `ModelConfig` from the metadata of a GGUF file; as strict as `config_from_hf`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxreason.errors import InputError
from jaxreason.models.config import (
    FAMILIES,
    GEMMA_LOCAL_THETA,
    GEMMA_PATTERN,
    ModelConfig,
    check_integer,
    layer_types,
    unsupported,
    validate,
)
from jaxreason.models.rope import Rope, inverse_frequencies


def config_from_gguf(
    metadata: Mapping[str, Any], *, vocab: int, tie_embeddings: bool, rope_factors: np.ndarray | None = None
) -> ModelConfig:
    """The configuration in GGUF keys. The other arguments come from tensors; `rope_factors` is `rope_freqs.weight`."""
    architecture = metadata.get("general.architecture")
    family = next((f for f, (_, name, _) in FAMILIES.items() if name == architecture), None)
    if family is None:
        names = ", ".join(name for _, name, _ in FAMILIES.values())
        raise unsupported("GGUF architecture", architecture, f"supported are {names}")
    fields = {k.removeprefix(f"{architecture}."): v for k, v in metadata.items() if k.startswith(f"{architecture}.")}
    fields.pop("vocab_size", None)

    def take(name: str, *default: Any) -> Any:
        if name not in fields and not default:
            raise InputError(f"model config: GGUF key {architecture}.{name} is missing; convert the model again")
        return check_integer(name, fields.pop(name, *default))

    gemma = family == "gemma3_text"
    hidden_size, heads, layers = take("embedding_length"), take("attention.head_count"), take("block_count")
    head_dim = take("attention.key_length", hidden_size // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if (value := take(name, head_dim)) != head_dim:
            raise unsupported(f"GGUF key {name} =", value, f"only the head width {head_dim} is implemented")
    kind = take("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise unsupported("rope.scaling.type", kind, "use a checkpoint with none or linear scaling")
    rope = Rope(theta=take("rope.freq_base", 10_000.0))
    if kind == "linear":
        rope = Rope(theta=rope.theta, kind="linear", factor=take("rope.scaling.factor"))
    if rope_factors is not None:
        rope = _llama3_rope(rope.theta, head_dim, rope_factors)
    extra = {}
    if gemma:
        pattern = take("attention.sliding_window_pattern", GEMMA_PATTERN)  # a period, or a flag for each layer
        if not isinstance(pattern, list):
            pattern = [t == "sliding_attention" for t in layer_types(layers, pattern)]
        extra = {
            "window": take("attention.sliding_window"),
            "sliding": tuple(pattern),
            "local_rope": Rope(theta=take("rope.freq_base_swa", GEMMA_LOCAL_THETA)),
            # Only Gemma 3 27B scales by hidden_size / heads. GGUF has no key for it; 62 layers identify the model.
            "query_scale": (hidden_size / heads if layers == 62 else head_dim) ** -0.5,
            "embed_scale": float(hidden_size) ** 0.5,
        }
    config = ModelConfig(
        family=family,
        vocab=vocab,
        hidden_size=hidden_size,
        layers=layers,
        heads=heads,
        kv_heads=take("attention.head_count_kv", heads),
        head_dim=head_dim,
        intermediate_size=take("feed_forward_length"),
        max_seq_len=take("context_length"),
        rope=rope,
        norm_eps=take("attention.layer_norm_rms_epsilon"),
        tie_embeddings=tie_embeddings,
        **FAMILIES[family][2],
        **extra,
    )
    if fields:
        name = sorted(fields)[0]
        raise unsupported(f"GGUF key {architecture}.{name} =", fields[name], "use a checkpoint without it")
    return validate(config)


def _llama3_rope(theta: float, head_dim: int, factors: np.ndarray) -> Rope:
    """The published llama3 setting that gives the divisors `factors`, which is all that GGUF stores of it."""
    plain = inverse_frequencies(Rope(theta=theta), head_dim)
    for factor in (8.0, 32.0):  # Llama 3.1, Llama 3.2
        rope = Rope(theta=theta, kind="llama3", factor=factor)
        if np.allclose(plain / inverse_frequencies(rope, head_dim), factors, rtol=1e-4):
            return rope
    raise unsupported("rope_freqs.weight starting", factors[:4].tolist(), "only the llama3 factors 8 and 32 are known")

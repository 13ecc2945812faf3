"""One frozen configuration for all decoder families, read from a `config.json` (GGUF: jaxreason.weights.gguf_config).

Reading is strict: an architecture or a field that is not implemented is an error that names it, because ignoring it
would silently compute another model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxreason.errors import InputError
from jaxreason.models.rope import Rope


@dataclass(frozen=True)
class ModelConfig:
    family: str
    """The published `model_type`: llama, qwen2, qwen3 or gemma3_text."""
    vocab: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    max_seq_len: int
    """Longest sequence the model was trained for, prompt and completion together."""
    rope: Rope = Rope()
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    """The unembedding is the embedding."""
    qkv_bias: bool = False
    qk_norm: bool = False
    activation: str = "silu"  # or "gelu_tanh"
    norm_offset: float = 0.0
    """RMSNorm multiplies by (offset + weight): 1 for Gemma."""
    sandwich_norms: bool = False
    """Norms after attention and MLP as well as before."""
    embed_scale: float = 1.0
    query_scale: float | None = None
    """Multiplies query-key products; None: head_dim ** -0.5."""
    window: int = 0
    """Keys that a token of a sliding-window layer attends to, itself included."""
    sliding: tuple[bool, ...] = ()
    """Which layers have sliding-window attention; empty: none."""
    local_rope: Rope = Rope()
    """Rotary embedding of the sliding-window layers."""
    reward: bool = False
    """A reward model: one linear map on the last hidden state replaces the unembedding."""

    @property
    def attention_scale(self) -> float:
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale


# `model_type` -> (class named in config.json, architecture named in GGUF, fields that the family fixes).
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "llama", {}),
    "qwen2": ("Qwen2ForCausalLM", "qwen2", {"qkv_bias": True}),
    "qwen3": ("Qwen3ForCausalLM", "qwen3", {"qk_norm": True}),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        "gemma3",
        {"qk_norm": True, "norm_offset": 1.0, "sandwich_norms": True, "activation": "gelu_tanh"},
    ),
}

GEMMA_LOCAL_THETA = 10_000.0
GEMMA_PATTERN = 6  # every sixth layer has full attention; Gemma 3 report, arXiv 2503.19786

LABELS = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
"""config.json of a classifier with one output."""


def architecture(family: str, reward: bool) -> str:
    """The name of the class in `transformers`."""
    language_model = FAMILIES[family][0]
    if not reward:
        return language_model
    return family.removesuffix("_text").title() + "Text" * family.endswith("_text") + "ForSequenceClassification"


# Fields that do not change what the network computes.
IGNORED = {
    *("architectures", "model_type", "tokenizer_class", "transformers_version", "transformers.js_config"),
    *("_name_or_path", "is_llama_config", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("dtype", "torch_dtype", "initializer_range", "attention_dropout"),
    *("use_cache", "cache_implementation", "max_window_layers"),
}

# Fields of which only these values are implemented.
IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "mlp_bias": (False,),
    "pretraining_tp": (1,),
    "rope_interleaved": (False,),
    "use_bidirectional_attention": (False, None),
    "use_mrope": (False,),
    "use_sliding_window": (False,),
}


def unsupported(thing: str, value: Any, remedy: str) -> InputError:
    return InputError(f"model config: {thing} {value!r} is not supported; {remedy}")


POSITIVE_INTEGERS = {
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "embedding_length", "block_count", "feed_forward_length", "context_length"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
}


def check_integer(name: str, value: Any) -> Any:
    """Returns `value`; InputError if `name` must be a positive integer and `value` is none."""
    if name in POSITIVE_INTEGERS and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
        raise unsupported(name, value, "it must be a positive integer")
    return value


def validate(config: ModelConfig) -> ModelConfig:
    if config.heads % config.kv_heads:
        raise unsupported("num_key_value_heads", config.kv_heads, f"it must divide num_attention_heads {config.heads}")
    if config.head_dim % 2:
        raise unsupported("head_dim", config.head_dim, "rotary embedding needs an even width")
    if config.sliding and len(config.sliding) != config.layers:
        raise unsupported("layer_types of length", len(config.sliding), f"the model has {config.layers} layers")
    return config


def _rope(theta: float, scaling: Mapping[str, Any] | None) -> Rope:
    """From the published `rope_theta` and `rope_scaling` (or one entry of the newer `rope_parameters`)."""
    fields = dict(scaling or {})
    kind = fields.pop("rope_type", fields.pop("type", "default"))
    fields.pop("type", None)
    theta = fields.pop("rope_theta", theta)
    names = {"linear": {"factor"}, "default": set()}.get(kind)
    if kind == "llama3":
        names = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    if names is None:
        raise unsupported("rope_scaling", kind, "use a checkpoint with default, linear or llama3 scaling")
    if set(fields) - names:
        raise unsupported("rope_scaling field", sorted(set(fields) - names)[0], f"{kind} scaling has {sorted(names)}")
    if names - set(fields):
        raise unsupported("rope_scaling without", sorted(names - set(fields))[0], "add the field")
    context = fields.pop("original_max_position_embeddings", Rope.original_context)
    return Rope(theta=float(theta), kind=kind, original_context=context, **{k: float(v) for k, v in fields.items()})


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """The configuration in the fields of a published `config.json`; InputError on anything that is not implemented."""
    fields = {k: v for k, v in raw.items() if k not in IGNORED}
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise unsupported("model_type", family, f"supported are {', '.join(FAMILIES)}")
    fixed = FAMILIES[family][2]
    reward = raw.get("architectures") == [architecture(family, reward=True)]
    if not reward and raw.get("architectures") not in (None, [architecture(family, reward=False)]):
        raise unsupported("architectures", raw["architectures"], f"{family} is read as {architecture(family, False)}")
    labels = [fields.pop(name, None) for name in LABELS]
    if reward and len(labels[0] or {}) != 1:
        raise unsupported("architectures", raw["architectures"], "a reward model has one label in id2label")

    def take(name: str, *default: Any) -> Any:
        if name not in fields and not default:
            raise InputError(f"model config: field {name!r} is missing; take the config.json published with the model")
        return check_integer(name, fields.pop(name, *default))

    gemma = family == "gemma3_text"
    hidden_size, heads, layers = take("hidden_size"), take("num_attention_heads"), take("num_hidden_layers")
    head_dim = fields.pop("head_dim", None) or hidden_size // heads
    activation = take("hidden_activation", None) or take("hidden_act", None)
    fields.pop("hidden_act", None)
    expected = "gelu_pytorch_tanh" if gemma else "silu"
    if activation != expected:
        raise unsupported("activation", activation, f"{family} is implemented with {expected}")

    rope_parameters = fields.pop("rope_parameters", None)
    scaling = fields.pop("rope_scaling", None)
    theta = float(fields.pop("rope_theta", 1e6 if gemma else 1e4))  # published as 10000 and as 10000.0
    local: dict[str, Any] = {}
    if rope_parameters and "full_attention" in rope_parameters:
        scaling = rope_parameters["full_attention"]
        local = {"local_rope": _rope(GEMMA_LOCAL_THETA, rope_parameters["sliding_attention"])}
    elif rope_parameters:
        scaling = rope_parameters
    if gemma:
        pattern = fields.pop("sliding_window_pattern", fields.pop("_sliding_window_pattern", GEMMA_PATTERN))
        fields.pop("_sliding_window_pattern", None)
        types = fields.pop("layer_types", None) or layer_types(layers, pattern)
        if set(types) - {"sliding_attention", "full_attention"}:
            raise unsupported("layer_types", sorted(set(types)), "layers are sliding_attention or full_attention")
        local_theta = float(fields.pop("rope_local_base_freq", GEMMA_LOCAL_THETA))
        local.setdefault("local_rope", Rope(theta=local_theta))
        local |= {
            "window": take("sliding_window"),
            "sliding": tuple(t == "sliding_attention" for t in types),
            "query_scale": take("query_pre_attn_scalar", head_dim) ** -0.5,
            "embed_scale": float(hidden_size) ** 0.5,
        }
    else:
        fields.pop("sliding_window", None)  # matters only with use_sliding_window, which is an error below
        if set(fields.pop("layer_types", None) or ["full_attention"]) != {"full_attention"}:
            raise unsupported("layer_types", "sliding_attention", f"{family} is implemented with full attention")
    config = ModelConfig(
        family=family,
        vocab=take("vocab_size"),
        hidden_size=hidden_size,
        layers=layers,
        heads=heads,
        kv_heads=take("num_key_value_heads", None) or heads,
        head_dim=head_dim,
        intermediate_size=take("intermediate_size"),
        max_seq_len=take("max_position_embeddings"),
        rope=_rope(theta, scaling),
        norm_eps=take("rms_norm_eps", 1e-6),
        tie_embeddings=take("tie_word_embeddings", gemma),
        reward=reward,
        **fixed,
        **local,
    )
    for name, values in IMPLEMENTED.items():
        if name in fields and fields.pop(name) not in values:
            raise unsupported(name, raw[name], f"only {values[0]!r} is implemented")
    if fields:
        name = sorted(fields)[0]
        raise unsupported(f"field {name} =", fields[name], "remove it if it does not change what the model computes")
    return validate(config)


def layer_types(layers: int, pattern: int) -> list[str]:
    return ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)]


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The fields of a `config.json` for `config`, as `transformers` and `config_from_hf` read it."""
    raw: dict[str, Any] = {
        "model_type": config.family,
        "architectures": [architecture(config.family, config.reward)],
        "vocab_size": config.vocab,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_seq_len,
        "rope_theta": config.rope.theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if config.reward:
        raw |= LABELS
    if config.rope.kind != "default":
        raw["rope_scaling"] = {"rope_type": config.rope.kind, "factor": config.rope.factor}
    if config.rope.kind == "llama3":
        raw["rope_scaling"] |= {
            "low_freq_factor": config.rope.low_freq_factor,
            "high_freq_factor": config.rope.high_freq_factor,
            "original_max_position_embeddings": config.rope.original_context,
        }
    if config.family == "gemma3_text":
        return raw | {
            "hidden_activation": "gelu_pytorch_tanh",
            "rope_local_base_freq": config.local_rope.theta,
            "query_pre_attn_scalar": round(config.attention_scale**-2),  # published as a whole number
            "sliding_window": config.window,
            "layer_types": ["sliding_attention" if s else "full_attention" for s in config.sliding],
        }
    return raw | {"hidden_act": "silu"}

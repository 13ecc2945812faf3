"""Published sizes of the families, for planning without any download. Source: the config.json of each model."""

from typing import Any

from jaxreason.models.config import ModelConfig, config_from_hf

NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
NAMES += ("intermediate_size", "vocab_size", "tie_word_embeddings")
# values of NAMES, in that order
LLAMA = {
    "smollm2-135m": (576, 30, 9, 3, 64, 1536, 49152, True),
    "smollm2-360m": (960, 32, 15, 5, 64, 2560, 49152, True),
    "smollm2-1.7b": (2048, 24, 32, 32, 64, 8192, 49152, True),
    "llama3.2-1b": (2048, 16, 32, 8, 64, 8192, 128256, True),
    "llama3.2-3b": (3072, 28, 24, 8, 128, 8192, 128256, True),
    "llama3.1-8b": (4096, 32, 32, 8, 128, 14336, 128256, False),
}
QWEN2 = {
    "qwen2.5-0.5b": (896, 24, 14, 2, 64, 4864, 151936, True),
    "qwen2.5-1.5b": (1536, 28, 12, 2, 128, 8960, 151936, True),
    "qwen2.5-3b": (2048, 36, 16, 2, 128, 11008, 151936, True),
    "qwen2.5-7b": (3584, 28, 28, 4, 128, 18944, 152064, False),
    "qwen2.5-14b": (5120, 48, 40, 8, 128, 13824, 152064, False),
    "qwen2.5-32b": (5120, 64, 40, 8, 128, 27648, 152064, False),
}
QWEN3 = {
    "qwen3-0.6b": (1024, 28, 16, 8, 128, 3072, 151936, True),
    "qwen3-1.7b": (2048, 28, 16, 8, 128, 6144, 151936, True),
    "qwen3-4b": (2560, 36, 32, 8, 128, 9728, 151936, True),
    "qwen3-8b": (4096, 36, 32, 8, 128, 12288, 151936, False),
    "qwen3-14b": (5120, 40, 40, 8, 128, 17408, 151936, False),
    "qwen3-32b": (5120, 64, 64, 8, 128, 25600, 151936, False),
}
GEMMA3 = {
    "gemma3-270m": (640, 18, 4, 1, 256, 2048, 262144, True),
    "gemma3-1b": (1152, 26, 4, 1, 256, 6912, 262144, True),
    "gemma3-4b": (2560, 34, 8, 4, 256, 10240, 262208, True),
    "gemma3-12b": (3840, 48, 16, 8, 256, 15360, 262208, True),
    "gemma3-27b": (5376, 62, 32, 16, 128, 21504, 262208, True),
}
R1_DISTILLED = {
    "r1-distill-qwen-1.5b": ("qwen2.5-1.5b", {"tie_word_embeddings": False}),
    "r1-distill-qwen-7b": ("qwen2.5-7b", {}),
    "r1-distill-qwen-14b": ("qwen2.5-14b", {}),
    "r1-distill-qwen-32b": ("qwen2.5-32b", {}),
    "r1-distill-llama-8b": ("llama3.1-8b", {}),
}
LLAMA3_ROPE = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_ROPE |= {"original_max_position_embeddings": 8192}
CONTEXT = 32768
"""Published context lengths are longer; a plan depends only on the lengths it is given."""


def preset(name: str) -> ModelConfig:
    """The configuration of a published model; KeyError if `name` is not in `PRESETS`."""
    base, changes = R1_DISTILLED.get(name, (name, {}))
    return config_from_hf(PUBLISHED[base] | changes)


def _published() -> dict[str, dict[str, Any]]:
    common = {"max_position_embeddings": CONTEXT, "hidden_act": "silu"}
    models = {}
    for name, sizes in LLAMA.items():
        own: dict[str, Any] = {"rope_theta": 100_000.0 if "135m" in name or "360m" in name else 130_000.0}
        if name.startswith("llama"):
            factor = 8.0 if "3.1" in name else 32.0
            own = {"rope_theta": 500_000.0, "rope_scaling": LLAMA3_ROPE | {"factor": factor}}
        models[name] = {"model_type": "llama", "rms_norm_eps": 1e-5} | own | common | _sizes(sizes)
    for family, table in {"qwen2": QWEN2, "qwen3": QWEN3}.items():
        own = {"model_type": family, "rms_norm_eps": 1e-6, "rope_theta": 1e6} | common
        models |= {name: own | _sizes(sizes) for name, sizes in table.items()}
    for name, sizes in GEMMA3.items():
        small = name in ("gemma3-270m", "gemma3-1b")
        own = {"model_type": "gemma3_text", "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh"}
        own |= {"max_position_embeddings": CONTEXT, "sliding_window": 512 if small else 1024}
        own |= {"query_pre_attn_scalar": 168 if "27b" in name else 256}
        own |= {} if small else {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
        models[name] = own | _sizes(sizes)
    return models


def _sizes(sizes: tuple[int | bool, ...]) -> dict[str, int | bool]:
    return dict(zip(NAMES, sizes, strict=True))


PUBLISHED = _published()
PRESETS = (*PUBLISHED, *R1_DISTILLED)

"""Published configurations are read, and what is not implemented is refused by name."""

import numpy as np
import pytest

from jaxreason.errors import InputError
from jaxreason.models.config import ModelConfig, config_from_hf, config_to_hf
from jaxreason.models.rope import Rope, inverse_frequencies
from jaxreason.weights.gguf_config import config_from_gguf
from tests.models.families import TINY

LLAMA_3_2_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}

QWEN2_5_0_5B = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}

GEMMA_3_1B = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}

GGUF = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 48,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


@pytest.mark.parametrize("family", TINY)
def test_hugging_face_fields_round_trip(family: str) -> None:
    assert config_from_hf(config_to_hf(TINY[family])) == TINY[family]


def test_published_llama_is_read() -> None:
    assert config_from_hf(LLAMA_3_2_1B) == ModelConfig(
        family="llama",
        vocab=128256,
        hidden_size=2048,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        intermediate_size=8192,
        max_seq_len=131072,
        rope=Rope(theta=500_000.0, kind="llama3", factor=32.0),
        norm_eps=1e-5,
    )


def test_published_qwen_is_read() -> None:
    config = config_from_hf(QWEN2_5_0_5B)
    assert (config.qkv_bias, config.qk_norm, config.head_dim, config.window) == (True, False, 64, 0)


def test_published_gemma_is_read() -> None:
    config = config_from_hf(GEMMA_3_1B)
    assert [i for i, slides in enumerate(config.sliding) if not slides] == [5, 11, 17, 23]
    assert (config.rope.theta, config.local_rope.theta, config.window) == (1e6, 1e4, 512)
    assert (config.query_scale, config.embed_scale, config.tie_embeddings) == (1 / 16, 1152**0.5, True)
    assert isinstance(config_to_hf(config)["query_pre_attn_scalar"], int)  # transformers refuses 256.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "'mamba'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "'high_freq_factor'"),
        ({"num_experts": 8}, "num_experts"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"hidden_size": "2048"}, "hidden_size '2048'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ({"layer_types": ["sliding_attention"] * 16}, "sliding_attention"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(change: dict, named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        config_from_hf(LLAMA_3_2_1B | change)
    assert "\n" not in str(error.value)


def test_missing_field_is_named() -> None:
    with pytest.raises(InputError, match="'hidden_size'"):
        config_from_hf({k: v for k, v in LLAMA_3_2_1B.items() if k != "hidden_size"})


def test_gguf_keys_are_read_and_unknown_ones_refused() -> None:
    config = config_from_gguf(GGUF, vocab=30, tie_embeddings=False)
    assert (config.kv_heads, config.head_dim, config.rope.theta, config.tie_embeddings) == (4, 8, 10_000.0, False)
    with pytest.raises(InputError, match=r"llama\.expert_count = 8"):
        config_from_gguf(GGUF | {"llama.expert_count": 8}, vocab=30, tie_embeddings=False)
    with pytest.raises(InputError, match="'phi3'"):
        config_from_gguf(GGUF | {"general.architecture": "phi3"}, vocab=30, tie_embeddings=False)
    with pytest.raises(InputError, match=r"llama\.block_count"):
        config_from_gguf({k: v for k, v in GGUF.items() if k != "llama.block_count"}, vocab=30, tie_embeddings=False)


def test_gguf_names_sliding_layers_by_a_period_or_one_by_one() -> None:
    keys = {k.replace("llama", "gemma3"): v for k, v in GGUF.items()}
    keys |= {"general.architecture": "gemma3", "gemma3.block_count": 7, "gemma3.attention.sliding_window": 16}
    one_by_one = [True, False, True, False, True, False, True]
    for given, sliding in ((None, [True] * 5 + [False, True]), (2, one_by_one), (one_by_one, one_by_one)):
        pattern = {} if given is None else {"gemma3.attention.sliding_window_pattern": given}
        assert config_from_gguf(keys | pattern, vocab=30, tie_embeddings=True).sliding == tuple(sliding)


def test_gguf_factors_give_back_the_published_scaling() -> None:
    rope = Rope(theta=500_000.0, kind="llama3", factor=32.0)
    factors = (inverse_frequencies(Rope(theta=500_000.0), 8) / inverse_frequencies(rope, 8)).astype(np.float32)
    keys = GGUF | {"llama.rope.freq_base": 500_000.0}
    assert config_from_gguf(keys, vocab=30, tie_embeddings=True, rope_factors=factors).rope == rope
    with pytest.raises(InputError, match="rope_freqs"):
        config_from_gguf(keys, vocab=30, tie_embeddings=True, rope_factors=factors * 1.1)

"""One decoder for all families: configuration, pure forward passes, weights in and out."""

from jaxreason.models.config import ModelConfig, config_from_hf, config_to_hf
from jaxreason.models.cost import forward_flops, reading_flops, training_flops, writing_flops
from jaxreason.models.fuse import fuse, unfuse
from jaxreason.models.lora import Lora, adaptable, init_lora, merge, overlay, unmerge
from jaxreason.models.reward_head import rewards_of, with_reward_head
from jaxreason.models.scoring import (
    Scores,
    Top,
    compare_hidden,
    compare_packed,
    compare_top,
    score_completions,
    score_packed,
    token_ranks,
    top_packed,
)
from jaxreason.models.transformer import (
    Transformer,
    init,
    param_shapes,
    run_completions,
    run_packed,
    run_prompts,
    unembed,
)

__all__ = [
    "Lora",
    "ModelConfig",
    "Scores",
    "Top",
    "Transformer",
    "adaptable",
    "compare_hidden",
    "compare_packed",
    "compare_top",
    "config_from_hf",
    "config_to_hf",
    "forward_flops",
    "fuse",
    "init",
    "init_lora",
    "merge",
    "overlay",
    "param_shapes",
    "reading_flops",
    "rewards_of",
    "run_completions",
    "run_packed",
    "run_prompts",
    "score_completions",
    "score_packed",
    "token_ranks",
    "top_packed",
    "training_flops",
    "unembed",
    "unfuse",
    "unmerge",
    "with_reward_head",
    "writing_flops",
]

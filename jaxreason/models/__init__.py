"""One decoder for all families: configuration, pure forward passes, weights in and out."""

from jaxreason.models.config import ModelConfig, config_from_hf, config_to_hf
from jaxreason.models.cost import decode_flops, forward_flops, prefill_flops, training_flops
from jaxreason.models.fuse import fuse, unfuse
from jaxreason.models.lora import Lora, attach_scale, init_lora, merge, merge_trees, unmerge
from jaxreason.models.reward_head import add_reward_head, score_rewards
from jaxreason.models.scoring import (
    Scores,
    TopK,
    full_divergence,
    packed_divergence,
    packed_topk,
    score_completions,
    score_packed,
    token_ranks,
    topk_divergence,
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
    "Lora", "ModelConfig", "Scores", "TopK", "Transformer", "add_reward_head", "attach_scale", "config_from_hf",
    "config_to_hf", "decode_flops", "forward_flops", "full_divergence", "fuse", "init", "init_lora", "merge",
    "merge_trees", "packed_divergence", "packed_topk", "param_shapes", "prefill_flops", "run_completions", "run_packed",
    "run_prompts", "score_completions", "score_packed", "score_rewards", "token_ranks", "topk_divergence",
    "training_flops", "unembed", "unfuse", "unmerge",
]  # fmt: skip

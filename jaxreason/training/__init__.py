"""New parameters from batches: state, updates (the only gradients), collecting groups, checkpoints."""

from jaxreason.training.batch import Batch, make_batch
from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.collect import (
    CollectedGroups,
    Replay,
    RolloutGroups,
    collect_groups,
    next_prompt_batch,
    rollout_metrics,
    sample_rows,
)
from jaxreason.training.distill import distill_loss, on_policy_batch, student_samples, topk_distill_loss
from jaxreason.training.microbatch import MicrobatchedUpdate
from jaxreason.training.preference import (
    PairBatch,
    batch_pairs,
    best_worst_pairs,
    completion_logps,
    completion_rewards,
    next_pairs,
    pair_batch_metrics,
    pair_loss,
    reward_loss,
    score_pairs,
)
from jaxreason.training.state import EVALUATION, TrainState, data_order, init_sharded_state, init_state, make_optimizer
from jaxreason.training.supervised import SFTBatch, make_sft_batch, sft_batch_metrics, sft_loss, shuffled_stream
from jaxreason.training.updates import grpo_loss, grpo_update, supervised_update

__all__ = [
    "EVALUATION", "Batch", "Checkpoints", "CollectedGroups", "MicrobatchedUpdate", "PairBatch", "Replay",
    "RolloutGroups", "SFTBatch", "TrainState", "batch_pairs", "best_worst_pairs", "collect_groups", "completion_logps",
    "completion_rewards", "data_order", "distill_loss", "grpo_loss", "grpo_update", "init_sharded_state", "init_state",
    "make_batch", "make_optimizer", "make_sft_batch", "next_pairs", "next_prompt_batch", "on_policy_batch",
    "pair_batch_metrics", "pair_loss", "reward_loss", "rollout_metrics", "sample_rows", "score_pairs",
    "sft_batch_metrics", "sft_loss", "shuffled_stream", "student_samples", "supervised_update", "topk_distill_loss",
]  # fmt: skip

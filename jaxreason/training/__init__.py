"""New parameters from rollouts and rewards: state, updates, the loop, checkpoints."""

from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.collect import Replay
from jaxreason.training.distill import distill_loss, on_policy_steps, student_samples, topk_distill_loss
from jaxreason.training.loop import EVALUATION, StepResult, grpo_steps
from jaxreason.training.microbatch import MicrobatchedUpdate
from jaxreason.training.preference import (
    batch_pairs,
    best_worst_pairs,
    completion_logps,
    pair_loss,
    pair_steps,
    preference_steps,
    reward_loss,
    score_pairs,
)
from jaxreason.training.state import TrainState, init_state, make_optimizer
from jaxreason.training.supervised import batch_of, sft_loss, shuffled_stream, supervised_update, text_steps
from jaxreason.training.updates import Batch, grpo_loss, grpo_update, make_batch

__all__ = [
    "EVALUATION",
    "Batch",
    "Checkpoints",
    "MicrobatchedUpdate",
    "Replay",
    "StepResult",
    "TrainState",
    "batch_of",
    "batch_pairs",
    "best_worst_pairs",
    "completion_logps",
    "distill_loss",
    "grpo_loss",
    "grpo_steps",
    "grpo_update",
    "init_state",
    "make_batch",
    "make_optimizer",
    "on_policy_steps",
    "pair_loss",
    "pair_steps",
    "preference_steps",
    "reward_loss",
    "score_pairs",
    "sft_loss",
    "shuffled_stream",
    "student_samples",
    "supervised_update",
    "text_steps",
    "topk_distill_loss",
]

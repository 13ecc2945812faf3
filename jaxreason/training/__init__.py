"""New parameters from rollouts and rewards: state, updates, the loop, checkpoints."""

from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.collect import Replay
from jaxreason.training.distill import on_policy_steps, own_words, stored_loss, teacher_loss
from jaxreason.training.loop import EVALUATION, StepResult, grpo_steps
from jaxreason.training.microbatch import Updater
from jaxreason.training.preference import (
    completion_logps,
    given_pairs,
    pair_loss,
    pair_steps,
    preference_steps,
    reward_loss,
    score_pairs,
    verified_pairs,
)
from jaxreason.training.state import TrainState, init_state, make_optimizer
from jaxreason.training.supervised import batch_of, in_turn, supervised_update, text_loss, text_steps
from jaxreason.training.updates import Batch, grpo_loss, grpo_update, prepare

__all__ = [
    "EVALUATION",
    "Batch",
    "Checkpoints",
    "Replay",
    "StepResult",
    "TrainState",
    "Updater",
    "batch_of",
    "completion_logps",
    "given_pairs",
    "grpo_loss",
    "grpo_steps",
    "grpo_update",
    "in_turn",
    "init_state",
    "make_optimizer",
    "on_policy_steps",
    "own_words",
    "pair_loss",
    "pair_steps",
    "preference_steps",
    "prepare",
    "reward_loss",
    "score_pairs",
    "stored_loss",
    "supervised_update",
    "teacher_loss",
    "text_loss",
    "text_steps",
    "verified_pairs",
]

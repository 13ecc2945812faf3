"""New parameters from rollouts and rewards: state, updates, the loop, checkpoints."""

from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.loop import EVALUATION, grpo_steps
from jaxreason.training.parts import updater
from jaxreason.training.state import TrainState, init_state, make_optimizer
from jaxreason.training.steps import Batch, grpo_loss, grpo_update, prepare
from jaxreason.training.supervised import (
    completion_logps,
    dpo_loss,
    preference_steps,
    supervised_update,
    text_loss,
    text_steps,
    verified_pairs,
    weigh,
)

__all__ = [
    "EVALUATION",
    "Batch",
    "Checkpoints",
    "TrainState",
    "completion_logps",
    "dpo_loss",
    "grpo_loss",
    "grpo_steps",
    "grpo_update",
    "init_state",
    "make_optimizer",
    "preference_steps",
    "prepare",
    "supervised_update",
    "text_loss",
    "text_steps",
    "updater",
    "verified_pairs",
    "weigh",
]

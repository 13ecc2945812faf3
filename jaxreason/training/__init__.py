"""New parameters from rollouts and rewards: state, updates, the loop, checkpoints."""

from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.loop import EVALUATION, grade, grpo_steps
from jaxreason.training.state import TrainState, init_state, make_optimizer
from jaxreason.training.steps import Batch, grpo_loss, grpo_update, prepare

__all__ = [
    "EVALUATION",
    "Batch",
    "Checkpoints",
    "TrainState",
    "grade",
    "grpo_loss",
    "grpo_steps",
    "grpo_update",
    "init_state",
    "make_optimizer",
    "prepare",
]

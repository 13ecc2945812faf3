"""One decoder for all families: configuration, pure forward passes, weights in and out."""

from jaxreason.models.config import ModelConfig, config_from_hf, config_to_hf
from jaxreason.models.fuse import fuse, unfuse
from jaxreason.models.load import LoadedModel, load_folder, load_model, save_folder
from jaxreason.models.resolve import SHIPPED
from jaxreason.models.scoring import Scores, score_completions, score_packed
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
    "SHIPPED",
    "LoadedModel",
    "ModelConfig",
    "Scores",
    "Transformer",
    "config_from_hf",
    "config_to_hf",
    "fuse",
    "init",
    "load_folder",
    "load_model",
    "param_shapes",
    "run_completions",
    "run_packed",
    "run_prompts",
    "save_folder",
    "score_completions",
    "score_packed",
    "unembed",
    "unfuse",
]

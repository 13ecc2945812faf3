"""Loads and saves published files: safetensors, GGUF, LoRA adapters; bundled, pip-installed and Hugging Face models."""

from jaxreason.weights.adapters import load_lora, save_lora
from jaxreason.weights.hub import BUNDLED
from jaxreason.weights.load import LoadedModel, load_folder, load_model, save_folder

__all__ = ["BUNDLED", "LoadedModel", "load_folder", "load_lora", "load_model", "save_folder", "save_lora"]

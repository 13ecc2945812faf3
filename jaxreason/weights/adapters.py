"""LoRA adapters in and out, in PEFT's format."""

import json
import os
from pathlib import Path

import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from safetensors.flax import load_file, save_file

from jaxreason.errors import InputError
from jaxreason.models.lora import Lora
from jaxreason.types import Params, flatten_params

PREFIX = "base_model.model."  # of every name in PEFT's files
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
FIXED = {"bias": "none", "use_dora": False, "modules_to_save": None, "fan_in_fan_out": False, "rank_pattern": {}}
FIXED |= {"alpha_pattern": {}, "layers_to_transform": None, "layer_replication": None}
"""PEFT settings that change what adapters compute, with the only values that are implemented."""


def save_lora(path: str | os.PathLike[str], lora: Lora, *, base: str = "") -> None:
    """Writes a folder that `peft.PeftModel.from_pretrained` reads; `base` names the base model."""
    path, flat = Path(path), flatten_params(lora.adapters)
    first = next(name for name in flat if name.endswith("lora_A.weight"))
    rank = flat[first].shape[0]
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank}
    settings |= {"lora_alpha": lora.scale * rank, "lora_dropout": 0.0, "inference_mode": True, "use_rslora": False}
    settings |= {"target_modules": sorted({name.split(".")[-3] for name in flat})} | FIXED
    path.mkdir(parents=True, exist_ok=True)
    save_file({PREFIX + name: x for name, x in flat.items()}, path / WEIGHTS, metadata={"format": "pt"})
    (path / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


def load_lora(path: str | os.PathLike[str], params: Params) -> Lora:
    """Reads a folder that PEFT or `save_lora` wrote, for unfused `params`."""
    path = Path(path)
    try:
        settings = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        flat = {name.removeprefix(PREFIX): x.astype(jnp.float32) for name, x in load_file(path / WEIGHTS).items()}
        rank, alpha = settings["r"], settings["lora_alpha"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} has no adapters that can be read ({error}); give a folder that PEFT wrote") from error
    for name, value in FIXED.items():
        if settings.get(name, value) not in (value, None):
            raise InputError(f"{path / SETTINGS}: {name} = {settings[name]!r} is not implemented; merge them with PEFT")
    shapes = {name: x.shape for name, x in flatten_params(params).items()}
    for name, x in flat.items():
        module, _, factor = name.removesuffix(".weight").rpartition(".")
        outputs, inputs = shapes.get(f"{module}.weight", (None, None))
        if x.shape != {"lora_A": (rank, inputs), "lora_B": (outputs, rank)}.get(factor):
            raise InputError(
                f"{path / WEIGHTS}: {name} {x.shape} does not fit the model; give the model it was made for"
            )
    return Lora(unflatten_dict(flat, sep="."), alpha / (rank**0.5 if settings.get("use_rslora") else rank))

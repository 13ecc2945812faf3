"""Loads models from safetensors folders and GGUF files; saves folders that `transformers` loads.

Parameters have the published names, so reading safetensors is a copy. Reading is strict: a missing tensor, an extra one
or one of another shape is an error, because the model would silently be wrong.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

from jaxreason.cache import enable_compilation_cache
from jaxreason.errors import InputError
from jaxreason.models.config import ModelConfig, config_from_hf, config_to_hf
from jaxreason.models.fuse import unfuse
from jaxreason.models.transformer import param_shapes
from jaxreason.text.tokenizer import Tokenizer, load_tokenizer, tokenizer_from_gguf
from jaxreason.types import Params, flatten_params
from jaxreason.weights.gguf_config import config_from_gguf
from jaxreason.weights.gguf_names import as_published, gguf_name
from jaxreason.weights.gguf_reader import open_gguf
from jaxreason.weights.hub import resolve

Shapes = dict[str, tuple[int, ...]]

EMBEDDING, UNEMBEDDING = "model.embed_tokens.weight", "lm_head.weight"
DTYPES = {"F32", "F16", "BF16"}


class LoadedModel(NamedTuple):
    config: ModelConfig
    params: Params
    """float32."""
    tokenizer: Tokenizer


def load_model(name: str, *, reward: bool = False) -> LoadedModel:
    """Loads a bundled or pip-installed model, a folder, a `.gguf` file or a Hugging Face repository `owner/name`.

    It must be a language model, or a reward model if `reward`. Turns on JAX's persistent compilation cache, as
    `load_folder` and `load_gguf` do (`jaxreason.cache`).
    """
    path = resolve(name)
    loaded = load_folder(path) if path.is_dir() else load_gguf(path)
    if loaded.config.reward != reward:
        kinds = {True: "a reward model", False: "a language model"}
        raise InputError(f"{name} is {kinds[not reward]}; give {kinds[reward]}")
    return loaded


def load_folder(path: str | os.PathLike[str]) -> LoadedModel:
    """Loads config.json, model.safetensors (or the shards in its index) and the tokeniser's files."""
    enable_compilation_cache()
    path = Path(path)
    if (path / "checkpoints").is_dir() and not any(path.glob("*.safetensors")):
        raise InputError(f"{path} is a run's folder; give {path / 'model'}, which --export writes")
    config = read_config(path)
    return LoadedModel(config, _read_safetensors(path, config), load_tokenizer(path))


def read_config(path: str | os.PathLike[str]) -> ModelConfig:
    """Reads only config.json of a folder."""
    return config_from_hf(_read_json(Path(path) / "config.json"))


def load_gguf(path: str | os.PathLike[str]) -> LoadedModel:
    """Loads a GGUF file, quantised or not, with its vocabulary."""
    enable_compilation_cache()
    path = Path(path)
    reader = open_gguf(path)
    config = _gguf_config(reader, path)
    return LoadedModel(config, _read_gguf(reader, config, path), tokenizer_from_gguf(reader))


def save_folder(
    path: str | os.PathLike[str], params: Params, config: ModelConfig, tokenizer: Tokenizer, dtype: str = "float32"
) -> None:
    """Writes, atomically, a folder that `load_folder` and `transformers` read. `params` may be fused (see `fuse`).

    Replaces a model saved there before; a folder with anything else in it is an InputError.
    """
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype {dtype!r} cannot be saved; give 'float32' or 'bfloat16'")
    path = Path(path)
    tensors = flatten_params(unfuse(params, config))
    _check_tensors({name: x.shape for name, x in tensors.items()}, param_shapes(config), "parameters")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        new = Path(scratch) / "new"
        tokenizer.save(new)
        (new / "config.json").write_text(json.dumps(config_to_hf(config) | {"dtype": dtype}, indent=2) + "\n")
        tensors = {name: x.astype(dtype) for name, x in tensors.items()}
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        _replace(path, new, old=Path(scratch) / "old")


def _replace(path: Path, new: Path, old: Path) -> None:
    """Renames folder `new` to `path`; an earlier save there is renamed to `old`."""
    if not path.exists():
        os.rename(new, path)
        return
    foreign = {"."} if not path.is_dir() else {p.name for p in path.iterdir()} - {p.name for p in new.iterdir()}
    if foreign:
        raise InputError(f"{path} has {min(foreign)!r}, which is not part of a saved model; give another folder")
    os.rename(path, old)
    os.rename(new, path)


def _check_tensors(shapes: Shapes, expected: Shapes, source: str) -> None:
    missing = [name for name in expected if name not in shapes]
    extra = [name for name in shapes if name not in expected]
    if missing:
        raise InputError(f"{source}: tensor {missing[0]!r} is missing ({len(missing)} in all); fetch the model again")
    if extra:
        raise InputError(
            f"{source}: tensor {extra[0]!r} is not part of the configured model ({len(extra)} in all); "
            "take the configuration published with these weights"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise InputError(
                f"{source}: tensor {name!r} has shape {shapes[name]}, the configuration gives {shape}; "
                "take the configuration published with these weights"
            )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a folder with a published model") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); fetch the file again") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} is a JSON {type(raw).__name__}, not an object; fetch the file again")
    return raw


def _safetensors_files(folder: Path) -> list[Path]:
    if (single := folder / "model.safetensors").exists():
        return [single]
    if not (index := folder / "model.safetensors.index.json").exists():
        raise InputError(
            f"{folder} has no model.safetensors; pickled weights (.bin, .pt) are not read, convert them to safetensors"
        )
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
        raise InputError(f"{index} has no weight_map from tensors to files; fetch the file again")
    return [folder / Path(file).name for file in sorted(set(shards.values()))]


def _open_safetensors(path: Path):
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; fetch the model again") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated, corrupt or unreadable ({error}); fetch the file again") from error


def _read_safetensors(folder: Path, config: ModelConfig) -> Params:
    with ExitStack() as stack:
        files = [stack.enter_context(_open_safetensors(file)) for file in _safetensors_files(folder)]
        # Old Llama checkpoints contain rotary_emb.inv_freq, which is computed from the configuration here.
        source = {n: file for file in files for n in file.keys() if not n.endswith("rotary_emb.inv_freq")}  # noqa: SIM118
        for name, file in source.items():
            if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
                raise InputError(f"{folder}: tensor {name!r} is {dtype}; take weights in {', '.join(sorted(DTYPES))}")
        if config.tie_embeddings and UNEMBEDDING in source and EMBEDDING in source:
            copy = source.pop(UNEMBEDDING).get_tensor(UNEMBEDDING)
            if not np.array_equal(copy, source[EMBEDDING].get_tensor(EMBEDDING)):
                raise InputError(
                    f"{folder}: tensor {UNEMBEDDING!r} differs from the embedding, though config.json ties them; "
                    'set "tie_word_embeddings": false'
                )
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in source.items()}
        _check_tensors(shapes, param_shapes(config), str(folder))
        # jnp.array copies: an alias of the memory-mapped file would change, or crash, with the file.
        flat = {name: jnp.array(file.get_tensor(name), jnp.float32) for name, file in source.items()}
    return unflatten_dict(flat, sep=".")


def _gguf_config(reader: GGUFReader, path: Path) -> ModelConfig:
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if "token_embd.weight" not in tensors:
        raise InputError(f"{path}: tensor 'token_embd.weight' is missing; give a GGUF file with a language model")
    factors = tensors.get("rope_freqs.weight")
    # Without the vocabulary, which takes a second to read.
    metadata = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("tokenizer.")}
    return config_from_gguf(
        metadata,
        vocab=int(tensors["token_embd.weight"].shape[-1]),
        tie_embeddings="output.weight" not in tensors,
        rope_factors=None if factors is None else np.array(factors.data),
    )


def _read_gguf(reader: GGUFReader, config: ModelConfig, path: Path) -> Params:
    tensors = {tensor.name: tensor for tensor in reader.tensors if tensor.name != "rope_freqs.weight"}
    expected = param_shapes(config)
    shapes = {name: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in tensors.items()}
    _check_tensors(shapes, {gguf_name(name, config): shape for name, shape in expected.items()}, str(path))
    flat = {}
    for name, shape in expected.items():
        tensor = tensors[gguf_name(name, config)]
        try:
            # np.asarray: each of many slices of a memmap costs microseconds; a plain array is 3 times faster in all.
            values = dequantize(np.asarray(tensor.data), tensor.tensor_type).reshape(shape)
        except NotImplementedError as error:
            kind = tensor.tensor_type.name
            raise InputError(f"{path}: tensor {tensor.name!r} is {kind}, which is not read; requantise it") from error
        flat[name] = jnp.array(as_published(name, values, config), jnp.float32)  # a copy: see _read_safetensors
    return unflatten_dict(flat, sep=".")

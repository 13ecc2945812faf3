"""Weights in and out: what is written is read back, and what does not fit is refused by name."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from jaxreason.errors import InputError
from jaxreason.models.config import ModelConfig
from jaxreason.models.rope import Rope, inverse_frequencies
from jaxreason.types import Params
from jaxreason.weights import hub
from jaxreason.weights.load import load_folder, load_gguf, load_model, save_folder
from tests.models.families import TINY, tiny_params, tiny_tokenizer


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A saved tiny Llama, tied."""
    save_folder(tmp_path / "llama", tiny_params(TINY["llama"], 0), TINY["llama"], tiny_tokenizer())
    return tmp_path / "llama"


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Changes the tensors of a saved model ."""
    tensors = {name: x.copy() for name, x in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def same(a: Params, b: Params, atol: float = 0.0) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)
    assert {x.dtype for x in jax.tree.leaves(a)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("family", TINY)
def test_a_saved_model_is_read_back(family: str, tmp_path: Path) -> None:
    params = tiny_params(TINY[family], 0)
    save_folder(tmp_path / "model", params, TINY[family], tiny_tokenizer())
    loaded = load_model(str(tmp_path / "model"))
    assert loaded.config == TINY[family]
    same(loaded.params, params)
    assert loaded.tokenizer.encode("w7") == [7]


def test_loading_turns_on_the_compilation_cache(tmp_path: Path) -> None:
    code = "import jax; from jaxreason.weights import load_model; load_model('tiny'); jax.jit(lambda x: x + 1)(1.0)"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    assert any((tmp_path / "jaxreason" / "compiled").glob("jit__lambda*"))
    (tmp_path / "other").mkdir()
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "other"), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    assert any((tmp_path / "own").glob("jit__lambda*")) and not any((tmp_path / "other").iterdir())


def test_half_precision_is_read_as_float32(llama: Path) -> None:
    cfg, params = TINY["llama"], tiny_params(TINY["llama"], 0)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    save_folder(llama, params, cfg, tiny_tokenizer(), dtype="bfloat16")
    assert json.loads((llama / "config.json").read_text())["dtype"] == "bfloat16"
    same(load_folder(llama).params, rounded)
    save_folder(llama, params, cfg, tiny_tokenizer())
    rewrite(llama, lambda tensors: tensors.update({name: x.astype(np.float16) for name, x in tensors.items()}))
    same(load_folder(llama).params, jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), params))
    rewrite(llama, lambda tensors: tensors.update({"model.norm.weight": np.ones(24, np.int8)}))
    assert "'model.norm.weight' is I8" in refused(lambda: load_folder(llama))


def test_shards_are_read_through_their_index(llama: Path) -> None:
    whole = load_folder(llama).params
    tensors = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").unlink()
    assert "no model.safetensors" in refused(lambda: load_folder(llama))
    half = dict.fromkeys(list(tensors)[::2], "model-00001-of-00002.safetensors")
    weight_map = dict.fromkeys(tensors, "model-00002-of-00002.safetensors") | half
    for file in set(weight_map.values()):
        save_file({name: x for name, x in tensors.items() if weight_map[name] == file}, llama / file)
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    same(load_folder(llama).params, whole)
    (llama / "model-00001-of-00002.safetensors").unlink()
    assert "model-00001-of-00002.safetensors does not exist" in refused(lambda: load_folder(llama))


def test_tensors_must_match_the_configuration(llama: Path) -> None:
    up = "model.layers.1.mlp.up_proj.weight"
    pristine = (llama / "model.safetensors").read_bytes()
    for change, words in (
        (lambda tensors: tensors.pop(up), f"{up!r} is missing"),
        (lambda tensors: tensors.update(extra=np.ones(1, np.float32)), "'extra' is not part"),
        (lambda tensors: tensors.update({up: tensors[up].T.copy()}), f"{up!r} has shape (24, 40)"),
    ):
        (llama / "model.safetensors").write_bytes(pristine)
        rewrite(llama, change)
        assert words in refused(lambda: load_folder(llama))


def test_redundant_tensors_of_published_checkpoints_are_accepted(llama: Path) -> None:
    whole = load_folder(llama).params
    inv_freq = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}
    rewrite(llama, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]} | inv_freq))
    same(load_folder(llama).params, whole)
    rewrite(llama, lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1}))
    assert "'lm_head.weight' differs" in refused(lambda: load_folder(llama))


def test_broken_folders_are_refused(llama: Path) -> None:
    weights, config = llama / "model.safetensors", llama / "config.json"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert f"{weights} is truncated" in refused(lambda: load_folder(llama))
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert f"{weights} is truncated" in refused(lambda: load_folder(llama))
    config.write_text("{")
    assert f"{config} cannot be read" in refused(lambda: load_folder(llama))
    config.unlink()
    assert f"{config} does not exist" in refused(lambda: load_folder(llama))


def test_saving_replaces_a_saved_model_and_nothing_else(llama: Path) -> None:
    cfg, params = TINY["llama"], tiny_params(TINY["llama"], 1)
    save_folder(llama, params, cfg, tiny_tokenizer())
    same(load_folder(llama).params, params)
    misshapen = jax.tree.map(lambda x: x[:-1], params)
    assert "has shape" in refused(lambda: save_folder(llama, misshapen, cfg, tiny_tokenizer()))
    (llama / "thesis.txt").touch()
    assert "'thesis.txt'" in refused(lambda: save_folder(llama, params, cfg, tiny_tokenizer()))
    same(load_folder(llama).params, params)
    assert [p.name for p in llama.parent.iterdir()] == ["llama"]


def write_gguf(path: Path, cfg: ModelConfig, params: Params, **extra: np.ndarray) -> None:
    """As llama.cpp's converter does: new names, Llama's query and key rows in pairs, Gemma's norms plus one."""
    architecture = cfg.family.removesuffix("_text")
    names = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture), cfg.layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(cfg.layers)
    writer.add_context_length(cfg.max_seq_len)
    writer.add_embedding_length(cfg.hidden_size)
    writer.add_feed_forward_length(cfg.intermediate_size)
    writer.add_head_count(cfg.heads)
    writer.add_head_count_kv(cfg.kv_heads)
    writer.add_key_length(cfg.head_dim)
    writer.add_value_length(cfg.head_dim)
    writer.add_layer_norm_rms_eps(cfg.norm_eps)
    writer.add_rope_freq_base(cfg.rope.theta)
    if cfg.family == "gemma3_text":
        writer.add_sliding_window(cfg.window)
        writer.add_sliding_window_pattern(2)
        writer.add_float32("gemma3.rope.freq_base_swa", cfg.local_rope.theta)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<eos>", "a", "b", "ab", *(f"unused{i}" for i in range(4, cfg.vocab))])
    writer.add_token_types([3, *[1] * (cfg.vocab - 1)])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    pairs = np.arange(cfg.head_dim).reshape(2, -1).T.reshape(-1)  # 0, H/2, 1, H/2 + 1, ...
    for name, x in flatten_dict(params, sep=".").items():
        x = np.asarray(x)
        if cfg.family == "llama" and (".q_proj." in name or ".k_proj." in name):
            x = x.reshape(-1, cfg.head_dim, cfg.hidden_size)[:, pairs].reshape(x.shape)
        if cfg.family == "gemma3_text" and name.endswith("norm.weight"):
            x = x + 1
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), x)
    for name, x in extra.items():
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_llama_gguf_gives_the_published_parameters(tmp_path: Path) -> None:
    rope = Rope(theta=500_000.0, kind="llama3", factor=8.0)  # the published ones alone are recognised in a GGUF
    cfg = dataclasses.replace(TINY["llama3"], rope=rope, norm_eps=2**-17)  # GGUF has 32 bits for it
    params = tiny_params(cfg, 0)
    factors = inverse_frequencies(Rope(theta=rope.theta), cfg.head_dim) / inverse_frequencies(rope, cfg.head_dim)
    path = tmp_path / "llama.gguf"
    write_gguf(path, cfg, params, **{"rope_freqs.weight": factors.astype(np.float32)})
    loaded = load_model(str(path))
    assert loaded.config == cfg
    same(loaded.params, params)
    assert loaded.tokenizer.encode("abb") == [3, 2]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gemma3"])
def test_a_gguf_of_another_family_gives_the_published_parameters(family: str, tmp_path: Path) -> None:
    cfg = dataclasses.replace(TINY[family], norm_eps=2**-20)
    if family == "gemma3":
        cfg = dataclasses.replace(cfg, query_scale=cfg.head_dim**-0.5)  # GGUF has no key for another
    params = tiny_params(cfg, 0)
    write_gguf(tmp_path / "model.gguf", cfg, params)
    loaded = load_gguf(tmp_path / "model.gguf")
    assert loaded.config == cfg
    same(loaded.params, params, atol=2e-7 * cfg.norm_offset)  # Gemma's norms, to which 1 was added


def test_gguf_tensors_must_match_the_configuration(tmp_path: Path) -> None:
    cfg, path = TINY["llama"], tmp_path / "model.gguf"
    params = flatten_dict(tiny_params(cfg, 0), sep=".")
    write_gguf(path, cfg, params | {"model.layers.0.mlp.gate_proj.bias": np.ones(40, np.float32)})
    assert "'blk.0.ffn_gate.bias' is not part" in refused(lambda: load_gguf(path))
    write_gguf(path, cfg, {name: x for name, x in params.items() if name != "model.norm.weight"})
    assert "'output_norm.weight' is missing" in refused(lambda: load_gguf(path))
    write_gguf(path, cfg, params | {"model.norm.weight": np.ones(cfg.hidden_size, np.int32)})
    assert "'output_norm.weight' is I32" in refused(lambda: load_gguf(path))
    write_gguf(path, cfg, params)
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in refused(lambda: load_gguf(path))


def test_unknown_models_are_answered_with_the_known_forms(tmp_path: Path) -> None:
    message = refused(lambda: load_model("gemma-270m"))
    assert "'gemma-270m'" in message
    assert message.index("gemma3-270m") < message.index("smollm2-135m") < message.index("owner/name")
    for missing in (tmp_path / "nothing", tmp_path / "nothing.gguf", "nothing/model.gguf"):
        assert "is not known" in refused(lambda name=str(missing): load_model(name))


def test_a_model_in_parts_is_joined_once_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [b"GG", b"UF", b"!"]
    model = hub.PipModel(
        parts=tuple((f"part_{i}", "data/part") for i in range(len(parts))),
        install="pip install parts",
        checksum=("parts", "SHA256SUMS"),
    )
    for i, part in enumerate(parts):
        (tmp_path / f"part_{i}" / "data").mkdir(parents=True)
        (tmp_path / f"part_{i}" / "data" / "part").write_bytes(part)
    monkeypatch.setitem(hub.PIP_MODELS, "parts", model)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    assert refused(lambda: hub.resolve("parts")).endswith("run: pip install parts")
    (tmp_path / "parts").mkdir()
    sums = tmp_path / "parts" / "SHA256SUMS"

    sums.write_text(f"{'0' * 64}  model.gguf\n")
    assert "have sha256" in refused(lambda: hub.resolve("parts"))
    assert list((hub.cache_folder() / "models").iterdir()) == []
    sums.write_text(f"{hashlib.sha256(b'GGUF!').hexdigest()}  model.gguf\n")
    joined = hub.resolve("parts")
    assert joined.read_bytes() == b"GGUF!"
    assert joined.is_relative_to(tmp_path / "cache" / "jaxreason" / "models")
    (tmp_path / "part_0" / "data" / "part").write_bytes(b"??")
    assert hub.resolve("parts").read_bytes() == b"GGUF!"  # not joined again


@pytest.mark.parametrize("alias", hub.PIP_MODELS)
def test_a_pip_model_that_is_not_installed_is_answered_with_the_command(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refused(lambda: load_model(alias)).endswith(f"run: {hub.PIP_MODELS[alias].install}")

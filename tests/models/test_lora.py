"""Adapters change nothing at first, merged equal applied, and files are PEFT's."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxreason.errors import InputError
from jaxreason.models import fuse
from jaxreason.models.lora import Lora, attach_scale, init_lora, merge, merge_trees, unmerge
from jaxreason.models.transformer import Transformer, run_completions, run_prompts, unembed
from jaxreason.weights import save_folder
from jaxreason.weights.adapters import load_lora, save_lora
from tests.models.families import TINY, tiny_batch, tiny_params, tiny_tokenizer

CFG = replace(TINY["qwen3"], layers=2)
PARAMS = tiny_params(CFG, seed=4)


def random_lora(**settings) -> Lora:
    """Adapters that change much: B is not zero."""
    lora = init_lora(jax.random.key(0), PARAMS, rank=3, alpha=6.0, **settings)
    return lora._replace(
        adapters=jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), lora.adapters)
    )


@jax.jit
def logits(params):
    prompts, completions = tiny_batch(CFG, seed=5)
    _, prompt_kv = run_prompts(params, prompts, model=Transformer(CFG))
    return unembed(
        params,
        run_completions(params, jnp.asarray(completions), prompt_kv, model=Transformer(CFG)),
        model=Transformer(CFG),
    )


@pytest.mark.parametrize("layout", [lambda params: params, fuse])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj", "o_proj", "up_proj", "down_proj")])
def test_merged_equals_applied_in_both_layouts(layout, targets):
    fresh = init_lora(jax.random.key(0), PARAMS, rank=3, alpha=6.0, targets=targets)
    np.testing.assert_array_equal(logits(merge_trees(attach_scale(PARAMS, fresh), fresh.adapters)), logits(PARAMS))
    lora = random_lora(targets=targets)
    merged = merge(PARAMS, lora)
    applied = logits(merge_trees(attach_scale(layout(PARAMS), lora), lora.adapters))
    np.testing.assert_allclose(applied, logits(merged), atol=1e-5 * float(jnp.abs(applied).max()))
    assert float(jnp.abs(applied - logits(PARAMS)).max()) > 0.1
    for name, x in flatten_dict(unmerge(merged, lora)).items():
        np.testing.assert_allclose(x, flatten_dict(PARAMS)[name], atol=1e-6)


def test_files_hold_what_was_saved_and_foreign_ones_are_refused(tmp_path):
    lora = random_lora()
    save_lora(tmp_path, lora, base="somebody/model")
    again = load_lora(tmp_path, PARAMS)
    assert again.scale == lora.scale == 2.0
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again.adapters, lora.adapters))
    with pytest.raises(InputError, match="does not fit the model"):
        load_lora(tmp_path, tiny_params(replace(CFG, intermediate_size=44), seed=0))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"use_dora": True}))
    with pytest.raises(InputError, match="use_dora = True is not implemented"):
        load_lora(tmp_path, PARAMS)
    with pytest.raises(InputError, match="no adapters that can be read"):
        load_lora(tmp_path / "nowhere", PARAMS)
    with pytest.raises(InputError, match="no parameter is a linear map called w_q"):
        init_lora(jax.random.key(0), PARAMS, rank=3, alpha=6.0, targets=["w_q"])


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers the old way
def test_peft_reads_our_files_and_we_read_peft(tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    save_folder(tmp_path / "base", PARAMS, CFG, tiny_tokenizer())
    lora = random_lora()
    save_lora(tmp_path / "ours", lora)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "ours")
    prompts, completions = tiny_batch(CFG, seed=5)
    whole = np.concatenate([np.asarray(prompts.tokens[0]), completions[0, 0]])
    with torch.no_grad():
        expected = model(torch.tensor(whole)[None]).logits[0, 11:]
    ours = logits(merge_trees(attach_scale(PARAMS, lora), lora.adapters))[0, 0]
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    model.save_pretrained(tmp_path / "theirs")
    again = load_lora(tmp_path / "theirs", PARAMS)
    assert again.scale == lora.scale
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again.adapters, lora.adapters))

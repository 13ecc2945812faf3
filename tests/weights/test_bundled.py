"""The models that ship with the package are whole, small, and read by transformers, too."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.models import Transformer, run_prompts, unembed
from jaxreason.tasks import load_task, messages
from jaxreason.text import encode_prompt
from jaxreason.types import Prompts
from jaxreason.weights import BUNDLED, hub, load_model

FOLDER = Path(hub.__file__).parent / "bundled"


@pytest.mark.slow
def test_what_ships_is_small_whole_and_reads_questions_alone():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 25e6
    assert sorted(folder.name for folder in FOLDER.iterdir()) == sorted(BUNDLED)
    task, vocabularies, sizes = load_task("grade-school"), set(), {}
    for name in BUNDLED:
        config, params, tokenizer = load_model(name)
        vocabularies.add((FOLDER / name / "tokenizer.model").read_bytes())
        sizes[name] = sum(x.size for x in jax.tree.leaves(params))
        assert tokenizer.vocab_size == config.vocab
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
        ids = encode_prompt(tokenizer, messages(task, task.train[0]))
        assert tokenizer.decode(ids) == f"<|user|>{task.train[0].question}<|assistant|>"
    assert len(vocabularies) == 1 and sizes["tiny"] == sizes["tiny-base"]
    assert 4 <= sizes["tiny-large-base"] / sizes["tiny-base"] <= 8


@pytest.mark.parity
def test_transformers_reads_it():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(FOLDER / "tiny", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER / "tiny")
    config, params, ours = load_model("tiny")
    task = load_task("grade-school")
    prompt = f"<|user|>{task.test[0].question}<|assistant|>"
    assert tokenizer.encode(prompt, add_special_tokens=False) == ours.encode(prompt)
    ids = ours.encode(prompt + task.test[0].solution)  # theirs would put a space after each line break
    prompts = Prompts(jnp.array([ids]), jnp.ones((1, len(ids)), bool))
    model = Transformer(config)
    logits = jax.jit(lambda p: unembed(p, run_prompts(p, prompts, model=model)[0], model=model))(params)
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3)

"""The family that ships with the package: whole, small, one vocabulary, and what it claims to be."""

from pathlib import Path

import jax
import numpy as np

from jaxreason.models import SHIPPED, load_model, resolve
from jaxreason.tasks import load_task, messages
from jaxreason.text import encode_prompt

FOLDER = Path(resolve.__file__).parent / "shipped"


def size(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def test_the_family():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 25e6
    models = {name: load_model(name) for name in SHIPPED}
    small, large = size(models["tiny-base"].params), size(models["tiny-large-base"].params)
    assert 4 <= large / small <= 8 and size(models["tiny"].params) == small
    vocabularies = {model.tokenizer.backend.processor.serialized_model_proto() for model in models.values()}
    assert len(vocabularies) == 1
    task = load_task("grade-school")
    ids = encode_prompt(models["tiny"].tokenizer, messages(task, task.train[0]))
    assert models["tiny"].tokenizer.decode(ids) == f"<|user|>{task.train[0].question}<|assistant|>"
    for _, params, _ in models.values():
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))

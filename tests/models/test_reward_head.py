"""Reward models: saved and loaded, one completion and a group, against transformers."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tokenizers

from jaxreason.errors import InputError
from jaxreason.models import add_reward_head, fuse
from jaxreason.rewards.learned import LearnedReward
from jaxreason.tasks import Problem
from jaxreason.weights import load_model, save_folder
from tests.models.families import TINY, tiny_params, tiny_tokenizer

CFG = replace(TINY["qwen3"], tie_embeddings=False)
PARAMS, CONFIG = add_reward_head(jax.random.key(0), fuse(tiny_params(CFG, seed=1)), CFG)
TOKENIZER = tiny_tokenizer()
TOKENIZER.backend.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
PROBLEM = Problem("w3 w4 w5", "", "", 0)


def encode(problem: Problem) -> list[int]:
    return TOKENIZER.encode(problem.question)


@pytest.fixture
def folder(tmp_path):
    save_folder(tmp_path / "judge", PARAMS, CONFIG, TOKENIZER)
    return str(tmp_path / "judge")


def test_a_text_has_one_reward_alone_in_a_group_and_from_a_file(folder):
    texts = ["w1 w2", "w7 w8 w9 w2", "w1"]
    reward = LearnedReward(CONFIG, PARAMS, TOKENIZER, encode)
    together = reward.of_group(texts, PROBLEM)
    np.testing.assert_allclose([reward(text, PROBLEM) for text in texts], together, atol=1e-5)
    assert len({round(value, 4) for value in together}) == 3
    again = LearnedReward(*load_model(folder, reward=True), encode)
    np.testing.assert_allclose(again.of_group(texts, PROBLEM), together, atol=1e-5)


def test_language_models_and_reward_models_are_told_apart(folder):
    with pytest.raises(InputError, match="is a reward model; give a language model"):
        load_model(folder)
    with pytest.raises(InputError, match="tiny is a language model; give a reward model"):
        load_model("tiny", reward=True)


@pytest.mark.parity
def test_transformers_reads_the_same_reward(folder):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    ids = [*encode(PROBLEM), *TOKENIZER.encode("w7 w8 w9 w2"), TOKENIZER.stop_ids[0]]
    with torch.no_grad():
        (expected,) = model(torch.tensor([ids])).logits[0].tolist()
    ours = LearnedReward(CONFIG, PARAMS, TOKENIZER, encode)("w7 w8 w9 w2", PROBLEM)
    np.testing.assert_allclose(ours, expected, atol=1e-4)

"""A reasoner with guides: where they change nothing, what they cost, and guides that speak another vocabulary."""

from itertools import islice

import jax
import pytest

from jaxreason.errors import InputError
from jaxreason.inference import force_budget, load_inference_model
from jaxreason.models import ModelConfig, init
from jaxreason.sampling import Sampling
from jaxreason.tasks import load_task, messages
from jaxreason.tasks.grade_school import corpus
from jaxreason.text import train_tokenizer
from jaxreason.weights import save_folder

TASK = load_task("grade-school")
KEY = jax.random.key(0)
HOW = {"sampling": Sampling(), "max_tokens": 24, "ask": lambda problem: messages(TASK, problem)}


def texts(reasoner) -> list[str]:
    return [one.text for group in reasoner.answer(TASK.train[:4], 2, KEY) for one in group.samples]


@pytest.fixture(scope="module")
def alone():
    return load_inference_model("tiny-large-base", **HOW)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A model with random weights, another vocabulary and a short context."""
    folder = tmp_path_factory.mktemp("foreign")
    words = train_tokenizer(
        islice(corpus.pretraining_texts("others", drills=0.0, premises=0.0), 500), vocabulary=500, symbols=()
    )
    config = ModelConfig(
        "llama", 500, 16, layers=1, heads=2, kv_heads=2, head_dim=8, intermediate_size=16, max_seq_len=160
    )
    save_folder(folder, init(jax.random.key(1), config), config, words)
    return str(folder)


def test_guides_that_change_nothing(alone):
    plain = texts(alone)
    assert texts(load_inference_model("tiny-large-base", guide="tiny", base="tiny-base", alpha=0.0, **HOW)) == plain
    guided = load_inference_model("tiny-large-base", guide="tiny", base="tiny-base", warmup=0, **HOW)
    assert texts(guided) != plain
    prompt = alone.prompt("How many?")
    small = load_inference_model("tiny", **HOW).reading(prompt).flops
    assert guided.reading(prompt).flops == alone.reading(prompt).flops + 2 * small


def test_guides_of_another_vocabulary(alone, foreign):
    same = load_inference_model("tiny-large-base", guide=foreign, base=foreign, mapped="text", warmup=0, **HOW)
    assert texts(same) == texts(alone)
    prompt = same.prompt("How many?")
    assert same.guides.decode(prompt.guides).strip() == "How many?"
    longer = same.extended(prompt, same.tokenizer.encode_continuation(" 12 ####"))
    assert len(longer.guides) - len(prompt.guides) == len(longer.tokens) - len(prompt.tokens)
    assert same.guides.decode(longer.guides).split()[-2:] == ["12", "####"]
    free = [group.samples[0].text for group in alone.answer(TASK.train[:2], 1, KEY)]
    forced = force_budget(same, TASK.train[:2], 1, KEY, budget=8)
    assert [group.samples[0].text.split("####")[0] for group in forced] == [text.split("####")[0] for text in free]


def test_guides_that_cannot_be(foreign):
    with pytest.raises(InputError, match=r"different vocabularies \(token .*map tokens of equal text"):
        load_inference_model("tiny", guide=foreign, base=foreign, **HOW)
    with pytest.raises(
        InputError, match="different vocabularies, of 1024 and 500 tokens: take the model that the guide"
    ):
        load_inference_model("tiny", guide="tiny", base=foreign, **HOW)
    guided = load_inference_model("tiny", guide=foreign, base=foreign, mapped="text", **HOW)
    with pytest.raises(InputError, match="more than the guide's context of 160"):
        guided.check([HOW["ask"](problem) for problem in TASK.train[:50]], more=100)

"""A guided model: where guidance changes nothing, what it costs, and guides with another vocabulary."""

from functools import partial
from itertools import islice

import jax
import pytest

from jaxreason.errors import InputError
from jaxreason.inference import InferenceModel, force_budget, load_guided_model, load_inference_model
from jaxreason.models import ModelConfig, init
from jaxreason.sampling import Sampling
from jaxreason.tasks import load_task, messages
from jaxreason.tasks.grade_school import corpus
from jaxreason.text import train_tokenizer
from jaxreason.weights import save_folder

TASK = load_task("grade-school")
KEY = jax.random.key(0)
SETTINGS = Sampling(), 24, partial(messages, TASK)


def texts(model: InferenceModel) -> list[str]:
    return [one.text for group in model.sample(TASK.train[:4], 2, KEY) for one in group.samples]


@pytest.fixture(scope="module")
def alone():
    return load_inference_model("tiny-large-base", *SETTINGS)


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


@pytest.mark.slow
def test_guidance_that_changes_nothing(alone):
    plain = texts(alone)
    assert texts(load_guided_model("tiny-large-base", "tiny", "tiny-base", *SETTINGS, alpha=0.0)) == plain
    guided = load_guided_model("tiny-large-base", "tiny", "tiny-base", *SETTINGS)
    assert texts(guided) != plain
    with pytest.warns(
        UserWarning, match=r"a warm-up of 500 tokens is longer than any of at most \d+: nothing is guided"
    ):
        unguided = load_guided_model("tiny-large-base", "tiny", "tiny-base", *SETTINGS, warmup=500)
    assert texts(unguided) == plain
    prompt = alone.encode("How many?")
    small = load_inference_model("tiny", *SETTINGS).prefill_cost(prompt).flops
    assert guided.prefill_cost(prompt).flops == alone.prefill_cost(prompt).flops + 2 * small


@pytest.mark.slow
def test_guides_of_another_vocabulary(alone, foreign):
    same = load_guided_model("tiny-large-base", foreign, foreign, *SETTINGS, token_map="text")
    assert texts(same) == texts(alone)
    prompt = same.encode("How many?")
    assert same.guide_tokenizer.decode(prompt.guide).strip() == "How many?"
    longer = same.extend(prompt, same.tokenizer.encode_continuation(" 12 ####"))
    assert len(longer.guide) - len(prompt.guide) == len(longer.tokens) - len(prompt.tokens)
    assert same.guide_tokenizer.decode(longer.guide).split()[-2:] == ["12", "####"]
    free = [group.samples[0].text for group in alone.sample(TASK.train[:2], 1, KEY)]
    forced = force_budget(same, TASK.train[:2], 1, KEY, budget=8)
    assert [group.samples[0].text.split("####")[0] for group in forced] == [text.split("####")[0] for text in free]


def test_incompatible_guides_are_refused(foreign):
    with pytest.raises(InputError, match=r"different vocabularies \(token .*map tokens of equal text"):
        load_guided_model("tiny", foreign, foreign, *SETTINGS)
    with pytest.raises(
        InputError, match="different vocabularies, of 1024 and 500 tokens: take the model that the guide"
    ):
        load_guided_model("tiny", "tiny", foreign, *SETTINGS)
    guided = load_guided_model("tiny", foreign, foreign, *SETTINGS, token_map="text")
    with pytest.raises(InputError, match="more than the guide's context of 160"):
        guided.check_messages([messages(TASK, problem) for problem in TASK.train[:50]], extra_tokens=100)

"""Problems to completions: how often a problem is tokenised."""

from collections import Counter
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.errors import InputError
from jaxreason.models.config import ModelConfig
from jaxreason.sampling import (
    Sampler,
    Sampling,
    check_prompts,
    init_decode_state,
    make_problem_sampler,
    sample_problems,
)
from jaxreason.tasks import Problem
from jaxreason.text.tokenizer import SentencePiece
from jaxreason.weights import load_model
from tests.models.families import TINY

_, _, TOKENIZER = load_model("tiny")
PROBLEMS = [Problem(question="x" * 10 * i + "?", answer="", solution="", index=i) for i in range(1, 7)]


class CountingBackend(SentencePiece):
    """Counts the texts it encodes."""

    def __init__(self, backend: SentencePiece):
        super().__init__(backend.processor.serialized_model_proto())
        self.texts = Counter()

    def encode(self, text):
        self.texts[text] += 1
        return super().encode(text)


@dataclass(frozen=True)
class StopsAtOnce:
    """A decoder whose first token is the stop token 0."""

    def prefill(self, params, prompts, group_size, cache_size):
        P = len(prompts.tokens)
        return 50 * jax.nn.one_hot(jnp.zeros(P, int), 4), init_decode_state((), (), P)

    def decode(self, params, tokens, state):
        raise AssertionError("no completion has a second token")


def counted_sampler(problem_to_messages=lambda problem: problem.question):
    backends = [CountingBackend(TOKENIZER.backend) for _ in range(2)]
    own, guide = (replace(TOKENIZER, backend=backend) for backend in backends)
    sampler = Sampler(StopsAtOnce(), Sampling(), max_tokens=1, stop_ids=(0,))
    return make_problem_sampler(sampler, own, problem_to_messages, guide), *(backend.texts for backend in backends)


def config(max_seq_len: int, vocab: int = TOKENIZER.vocab_size) -> ModelConfig:
    return replace(TINY["llama"], max_seq_len=max_seq_len, vocab=vocab)


def test_a_problem_is_tokenised_once():
    sampler, texts, guide_texts = counted_sampler()
    for seed in range(2):
        for batch in sample_problems(sampler, (), PROBLEMS, group_size=2, key=jax.random.key(seed)):
            assert batch.completions == [["", ""]] * len(batch.indices)
    prompts = sampler.prompts(PROBLEMS[::-1])
    check_prompts(sampler, PROBLEMS, max_tokens=16, config=config(78))
    assert texts == guide_texts == Counter({problem.question: 1 for problem in PROBLEMS})
    expected = [TOKENIZER.encode(problem.question) for problem in PROBLEMS[::-1]]
    for side in (prompts, prompts.guide):
        assert [row[real].tolist() for row, real in zip(side.tokens, side.mask, strict=True)] == expected


def test_prompts_that_are_short_enough_are_checked_without_tokenising():
    sampler, texts, _ = counted_sampler()
    check_prompts(sampler, PROBLEMS, max_tokens=16, config=config(79))  # 61 bytes, BOS, space and 16 tokens
    assert not texts
    check_prompts(sampler, PROBLEMS, max_tokens=16, config=config(78))
    assert list(texts) == [PROBLEMS[-1].question]
    check_prompts(sampler, [replace(PROBLEMS[0], question="é?")], max_tokens=16, config=config(79))
    assert list(texts)[1:] == ["é?"]  # normalisation may expand what is not ASCII
    long = replace(PROBLEMS[0], question="".join(map(chr, range(33, 127))))
    count = len(TOKENIZER.encode(long.question))
    check_prompts(sampler, [long], max_tokens=16, config=config(count + 16))
    with pytest.raises(InputError, match=f"has {count} tokens and completions 16, more than the model's context"):
        check_prompts(sampler, [long], max_tokens=16, config=config(count + 15))
    with pytest.raises(InputError, match=r"has token .*, but the model knows 9: use the tokenizer"):
        check_prompts(sampler, PROBLEMS, max_tokens=1, config=config(1000, vocab=9))


def test_ascii_text_has_no_more_tokens_than_bytes_a_bos_and_a_space():
    rng = np.random.default_rng(0)
    texts = [chr(code) for code in range(128)]
    texts += ["".join(map(chr, rng.integers(0, 128, n))) for n in rng.integers(2, 30, 200)]
    for name in ("tiny", "tiny-large-base"):
        tokenizer = load_model(name).tokenizer
        assert all(len(tokenizer.encode(text)) <= len(text) + 1 for text in texts)

"""Packing places every token once, in order; a trained vocabulary splits digits and is lossless."""

from itertools import islice

import numpy as np
import pytest

from jaxreason.data import filter_or_truncate, first_fit, pack
from jaxreason.errors import InputError
from jaxreason.tasks.grade_school import corpus
from jaxreason.text import Document, encode_prompt, load_tokenizer, prompt_completion, train_tokenizer


def packed_rows(documents, *, rows, length):
    return pack(first_fit(documents, rows=rows, length=length), rows=rows, length=length)


def test_documents_fill_rows_first_fit():
    documents = [
        prompt_completion([1, 2], [3]),
        Document([4, 5]),
        Document([6, 7, 8, 9]),
        Document([10]),
        Document([11, 12]),
    ]
    packed = packed_rows(documents, rows=2, length=6)
    np.testing.assert_array_equal(packed.tokens, [[1, 2, 3, 4, 5, 10], [6, 7, 8, 9, 11, 12]])
    np.testing.assert_array_equal(packed.segments, [[1, 1, 1, 2, 2, 3], [1, 1, 1, 1, 2, 2]])
    np.testing.assert_array_equal(packed.target_positions, [[2, 4, 0, 0], [1, 2, 3, 5]])
    stopped = packed_rows([Document([1] * 4), Document([2] * 4), Document([3])], rows=1, length=6)
    np.testing.assert_array_equal(stopped.tokens, [[1, 1, 1, 1, 0, 0]])  # stops at the first that does not fit
    with pytest.raises(InputError, match="a text has 7 tokens, more than a row of 6"):
        packed_rows([Document([0] * 7)], rows=1, length=6)


def test_long_documents_are_truncated_only_on_request():
    documents = [
        prompt_completion([1, 2], [3, 4], "line 1"),
        prompt_completion([1] * 5, [2, 2], "line 2"),
        prompt_completion([1, 2, 3, 4], [5], ""),
    ]
    with pytest.raises(InputError, match="line 2 has 7 tokens, more than a row of 6"):
        filter_or_truncate(documents, 6, truncate=False)
    expected = [documents[0], prompt_completion([1] * 5, [2], "line 2"), documents[2]]
    assert filter_or_truncate(documents, 6, truncate=True) == (expected, 1)
    assert filter_or_truncate(documents, 4, truncate=True) == ([documents[0]], 2)  # no loss is left on the others


def test_a_trained_vocabulary(tmp_path):
    texts = list(islice(corpus.pretraining_texts("test", drills=0.1, premises=0.1), 2000))
    tokenizer = train_tokenizer(texts, vocabulary=900, symbols=("####",))
    assert tokenizer.vocab_size == 900
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    for text in [*texts[:100], "Łódź — 漢字 \t\n\n 007", "#### 12<|user|>"]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert again.encode(text) == ids
        tokens = [tokenizer.decode([index]) for index in ids]
        assert not any(sum(c.isdigit() for c in token) > 1 for token in tokens)
    assert len(tokenizer.encode("####")) <= 2 and tokenizer.stop_ids == again.stop_ids == (1,)
    ids = encode_prompt(again, [{"role": "user", "content": "How many?\n\nThink step by step."}])
    assert tokenizer.decode(ids) == "<|user|>How many?<|assistant|>"

"""JSONL training files: the meaning of a line, and the errors of bad lines."""

import json

import numpy as np
import pytest

from jaxreason.data import load_preference_jsonl, load_sft_jsonl, load_teacher_jsonl
from jaxreason.errors import InputError
from jaxreason.text import encode_answer, encode_prompt
from jaxreason.weights import load_model

TOKENIZER = load_model("tiny").tokenizer
QUESTION = [{"role": "user", "content": "How many?"}]


def write_file(path, *rows) -> str:
    file = path / "train.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(file)


def test_three_formats_of_an_example(tmp_path):
    turn = {"role": "assistant", "content": "#### 7"}
    file = write_file(
        tmp_path,
        {"messages": [*QUESTION, turn]},
        {"prompt": QUESTION, "completion": "#### 7"},
        {"prompt": QUESTION, "completion": [turn]},
        "",
        {"prompt": "How many?\n", "completion": "#### 7"},
    )
    chat, texts, message, plain = load_sft_jsonl(file, TOKENIZER)
    assert chat[:2] == texts[:2] == message[:2]
    prompt = encode_prompt(TOKENIZER, QUESTION)
    assert chat.tokens == [*prompt, *encode_answer(TOKENIZER, QUESTION, "#### 7")]
    assert chat.loss_mask.index(True) == len(prompt) and chat.tokens[-1] == TOKENIZER.stop_ids[0]
    assert plain.tokens == [*TOKENIZER.encode("How many?\n"), *TOKENIZER.encode("#### 7"), TOKENIZER.stop_ids[0]]
    assert plain.name == f"{file} line 5"


def test_pairs_and_their_sources(tmp_path):
    row = {"prompt": QUESTION, "chosen": "#### 7", "rejected": "#### 8", "chosen_source": "tiny right"}
    (pair,) = load_preference_jsonl(write_file(tmp_path, row), TOKENIZER)
    assert pair.prompt == encode_prompt(TOKENIZER, QUESTION)
    assert (pair.chosen, pair.rejected) == tuple(encode_answer(TOKENIZER, QUESTION, f"#### {n}") for n in (7, 8))
    assert pair.sources == ("tiny right", "")


GOOD = {"prompt": "a", "completion": "b", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("read", "row", "complaint"),
    [
        (load_sft_jsonl, "{", "line 2 is not JSON"),
        (load_sft_jsonl, {"text": "a"}, "line 2 has neither 'messages' nor 'prompt'"),
        (load_sft_jsonl, GOOD | {"completion": " "}, "line 2 has the completion ' '; write a non-empty string"),
        (load_sft_jsonl, GOOD | {"completion": 7}, "line 2 has the completion '7'"),
        (load_sft_jsonl, GOOD | {"prompt": ""}, "line 2 has an empty prompt"),
        (load_sft_jsonl, {"messages": [{"role": "user"}]}, "line 2 has the message .*; give strings 'role'"),
        (load_sft_jsonl, {"messages": QUESTION}, "line 2 does not end with the assistant's answer"),
        (load_preference_jsonl, GOOD | {"rejected": "b"}, "line 2 has the same 'chosen' and 'rejected' text"),
        (load_preference_jsonl, GOOD | {"chosen": ""}, "line 2 has the chosen ''; write a non-empty string"),
        (load_preference_jsonl, {"prompt": "a", "chosen": "b"}, "line 2 lacks 'rejected'"),
    ],
)
def test_a_bad_line_is_named(read, row, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint):
        read(write_file(tmp_path, GOOD, row), TOKENIZER)


def test_teacher_samples(tmp_path):
    row = {"question": "How many?", "completion": "7", "tokens": [4, 0], "top_ids": [[4, 5], [0, 9]]}
    row |= {"top_logps": [[-0.5, -1.0], [-0.1, -3.0]], "temperature": 2.0}
    (sample,) = load_teacher_jsonl(write_file(tmp_path, row), temperature=2.0)
    assert (sample.question, sample.completion, sample.tokens) == ("How many?", "7", [4, 0])
    assert [part.tolist() for part in sample.topk] == [[[4, 5], [0, 9]], pytest.approx(np.array(row["top_logps"]))]
    plain = {"question": "How many?", "completion": "7"}
    for rows, complaint in (
        ([row | {"temperature": 1.0}], "line 1 was stored at temperature 1.0, not 2.0"),
        ([row | {"top_logps": [[0.0, 0.0], [-0.1, -3.0]]}], "line 1 .* that sum to at most 1"),
        ([row | {"tokens": [4]}], "line 1 has 'tokens', 'top_ids' and 'top_logps' that do not match"),
        ([row, plain], "different numbers of stored tokens"),
        ([], "has no samples"),
    ):
        with pytest.raises(InputError, match=complaint):
            load_teacher_jsonl(write_file(tmp_path, *rows), temperature=2.0)


def test_an_empty_file(tmp_path):
    for read in (load_sft_jsonl, load_preference_jsonl):
        with pytest.raises(InputError, match="write one JSON object per line"):
            read(write_file(tmp_path), TOKENIZER)

"""Files to learn from: what a line means, and which line is refused and why."""

import json

import pytest

from jaxreason.data import load_preference_jsonl, load_sft_jsonl
from jaxreason.errors import InputError
from jaxreason.text import encode_answer, encode_prompt
from jaxreason.weights import load_model

TOKENIZER = load_model("tiny").tokenizer
QUESTION = [{"role": "user", "content": "How many?"}]


def written(path, *rows) -> str:
    file = path / "lessons.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(file)


def test_three_ways_to_write_a_lesson(tmp_path):
    turn = {"role": "assistant", "content": "#### 7"}
    file = written(
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


def test_pairs_and_who_wrote_them(tmp_path):
    row = {"prompt": QUESTION, "chosen": "#### 7", "rejected": "#### 8", "chosen_source": "tiny right"}
    (pair,) = load_preference_jsonl(written(tmp_path, row), TOKENIZER)
    assert pair.prompt == encode_prompt(TOKENIZER, QUESTION)
    assert (pair.chosen, pair.rejected) == tuple(encode_answer(TOKENIZER, QUESTION, f"#### {n}") for n in (7, 8))
    assert pair.sources == ("tiny right", "")


GOOD = {"prompt": "a", "completion": "b", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("read", "row", "complaint"),
    [
        (load_sft_jsonl, "{", "line 2 is not JSON"),
        (load_sft_jsonl, {"text": "a"}, "line 2 has neither 'messages' nor 'prompt'"),
        (load_sft_jsonl, GOOD | {"completion": " "}, "line 2 has the completion ' '; write a text that is not empty"),
        (load_sft_jsonl, GOOD | {"completion": 7}, "line 2 has the completion '7'"),
        (load_sft_jsonl, GOOD | {"prompt": ""}, "line 2 has an empty prompt"),
        (load_sft_jsonl, {"messages": [{"role": "user"}]}, "line 2 has the message .*; give the texts 'role'"),
        (load_sft_jsonl, {"messages": QUESTION}, "line 2 does not end with the assistant's answer"),
        (load_preference_jsonl, GOOD | {"rejected": "b"}, "line 2 has the same text as 'chosen' and 'rejected'"),
        (load_preference_jsonl, GOOD | {"chosen": ""}, "line 2 has the chosen ''; write a text"),
        (load_preference_jsonl, {"prompt": "a", "chosen": "b"}, "line 2 lacks 'rejected'"),
    ],
)
def test_a_bad_line_is_named(read, row, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint):
        read(written(tmp_path, GOOD, row), TOKENIZER)


def test_a_file_of_nothing(tmp_path):
    for read in (load_sft_jsonl, load_preference_jsonl):
        with pytest.raises(InputError, match="write one JSON object a line"):
            read(written(tmp_path), TOKENIZER)

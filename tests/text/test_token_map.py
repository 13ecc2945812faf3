"""Token maps: by text, from a file, and vocabularies that need none."""

import json
from itertools import islice

import pytest
import tokenizers
from tokenizers.models import WordLevel

from jaxreason.errors import InputError
from jaxreason.tasks.grade_school import corpus
from jaxreason.text import Tokenizer, check_same_vocabulary, make_token_map, token_strings, train_tokenizer
from jaxreason.text.tokenizer import HuggingFace
from jaxreason.weights import load_model


@pytest.fixture(scope="module")
def ours():
    return load_model("tiny").tokenizer


@pytest.fixture(scope="module")
def theirs():
    texts = islice(corpus.pretraining_texts("others", drills=0.0, premises=0.0), 500)
    return train_tokenizer(texts, vocabulary=500, symbols=())


def test_tokens_of_equal_text(ours, theirs):
    token_map = make_token_map(ours, theirs, "a", "b", guide_vocab=500, source="text")
    ids, unknown = token_map.ids.tolist(), int(token_map.unknown)
    assert len(ids) == ours.vocab_size and 0 <= unknown < theirs.vocab_size
    mapped = [(i, j) for i, j in enumerate(ids) if j >= 0 and i not in ours.stop_ids]
    assert len(mapped) > 100
    word = ours.encode("a")
    for i, j in mapped:
        assert ours.decode([*word, i])[1:] == theirs.decode([*theirs.encode("a"), j])[1:]
    assert all(ids[end] == theirs.stop_ids[0] for end in ours.stop_ids)
    lost = {ours.decode([*word, i])[1:] for i, j in enumerate(ids) if j < 0} - {"", "�"}  # bytes
    assert lost and not lost & set(token_strings(theirs, theirs.vocab_size))


def test_one_family_needs_no_map(ours, theirs):
    assert make_token_map(ours, ours, "a", "b", guide_vocab=1024, source="") is None
    with pytest.raises(InputError, match=r"a and b have different vocabularies \(token 5 is .*give a JSON file"):
        make_token_map(ours, theirs, "a", "b", guide_vocab=500, source="")


def words(*texts: str, ends: int) -> Tokenizer:
    vocabulary = WordLevel({text: i for i, text in enumerate(texts)}, unk_token=texts[0])
    return Tokenizer(HuggingFace(tokenizers.Tokenizer(vocabulary)), {}, False, (ends,))


def test_a_descended_model_may_rename_control_tokens_and_end_otherwise():
    base, reasoner = words("a", "<|end|>", "<|box|>", ends=1), words("a", "<|end|>", "<think>", ends=2)
    check_same_vocabulary(reasoner, base, "a", "b", descended=True)
    with pytest.raises(InputError, match=r"token 2 is '<think>' and '<\|box\|>'"):
        check_same_vocabulary(reasoner, base, "a", "b")
    with pytest.raises(InputError, match="token 2 is '<think>' and 'b'"):
        check_same_vocabulary(reasoner, words("a", "<|end|>", "b", ends=1), "a", "b", descended=True)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"▁How": 500}, "maps '▁How' to 500, which is no token of b: give one, or an id from 0 to 499"),
        ({"▁How": "▁nosuchword"}, "maps '▁How' to '▁nosuchword', which is no token of b"),
        ({"nosuchtoken": 3}, "has 'nosuchtoken', which is no token of the target"),
        ([1, 2], "holds list"),
    ],
)
def test_invalid_maps_are_refused(ours, theirs, tmp_path, content, complaint):
    file = tmp_path / "map.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=complaint):
        make_token_map(ours, theirs, "a", "b", guide_vocab=500, source=str(file))
    with pytest.raises(InputError, match=r"absent\.json cannot be read"):
        make_token_map(ours, theirs, "a", "b", guide_vocab=500, source=str(tmp_path / "absent.json"))


def test_a_map_from_a_file(ours, theirs, tmp_path):
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"####": 7, "▁How": "▁How"}))
    ids, _ = make_token_map(ours, theirs, "a", "b", guide_vocab=500, source=str(file))
    expected = {ours.backend.token_id("####"): 7, ours.backend.token_id("▁How"): theirs.backend.token_id("▁How")}
    assert {index: image for index, image in enumerate(ids.tolist()) if image >= 0} == expected


def test_a_map_needs_guides_with_its_tokens(ours, theirs):
    """A guide's tokenizer may have more tokens than its embedding has rows."""
    largest = max(make_token_map(ours, theirs, "a", "b", source="text", guide_vocab=500).ids.tolist())
    make_token_map(ours, theirs, "a", "b", source="text", guide_vocab=largest + 1)
    with pytest.raises(InputError, match=f"uses token {largest} of b, but the guides know {largest} tokens"):
        make_token_map(ours, theirs, "a", "b", source="text", guide_vocab=largest)

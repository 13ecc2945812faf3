"""Small tokenizers trained here, before and after GGUF files and folders."""

import io
import json
import runpy
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import sentencepiece
import tokenizers
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from jaxreason.errors import InputError
from jaxreason.text.tokenizer import HuggingFace, SentencePiece, Tokenizer, load_tokenizer, tokenizer_from_gguf
from jaxreason.weights.gguf_reader import open_gguf

GOLDEN = Path(__file__).parent / "golden"
make = runpy.run_path(str(GOLDEN / "make.py"))
HOSTILE = make["hostile_strings"]()

SENTENCES = ["she sells sea shells by the sea shore", "a  quick brown fox: 12 + 34 = 46", "it's what we'll say"] * 9


# Small vocabularies.


def trained_sentencepiece(**options) -> bytes:
    """A model of 330 pieces, all 256 bytes, runs of spaces and "<|im_end|>" among them."""
    model = io.BytesIO()
    defaults = dict(
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        control_symbols=["<|im_end|>", "<|im_end|>>"],
        user_defined_symbols=["\n\n", "▁▁", "▁▁▁"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, **(defaults | options)
    )
    return model.getvalue()


def trained_bpe() -> tokenizers.Tokenizer:
    """A byte-level BPE with the pre-tokenizer of SmolLM2; ids 0 and 1 are special."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Digits(individual_digits=True), tokenizers.pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, "a   b", "    "], trainer)
    return tokenizer


def write_gguf(path: Path, **fields) -> Path:
    """Writes a GGUF file with one small tensor, whose metadata are `tokenizer.ggml.FIELD`."""
    writer = gguf.GGUFWriter(path, "llama")
    add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
    for name, value in fields.items():
        add[type(value)](f"tokenizer.{name}" if name == "chat_template" else f"tokenizer.ggml.{name}", value)
    writer.add_tensor("x", np.arange(32, dtype=np.float32).reshape(4, 8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sentencepiece_fields(model: bytes) -> dict:
    """What a converter writes for a sentencepiece model: UNKNOWN as CONTROL, user-defined pieces as text."""
    proto = ModelProto.FromString(model)
    kinds = [3 if piece.type == 2 else piece.type for piece in proto.pieces]
    tokens = [p.piece.replace("▁", " ") if p.type == 4 else p.piece for p in proto.pieces]
    return dict(
        model="llama",
        tokens=tokens,
        scores=[piece.score for piece in proto.pieces],
        token_type=kinds,
        unknown_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        eot_token_id=tokens.index("<|im_end|>"),
        add_space_prefix=proto.normalizer_spec.add_dummy_prefix,
    )


def bpe_fields(tokenizer: tokenizers.Tokenizer) -> dict:
    model = json.loads(tokenizer.to_str())["model"]
    return dict(
        model="gpt2",
        pre="smollm",
        tokens=list(model["vocab"]),
        token_type=[3, 3] + [1] * (len(model["vocab"]) - 2),
        merges=[" ".join(pair) for pair in model["merges"]],
        bos_token_id=0,
        eos_token_id=1,
    )


@pytest.fixture(scope="module")
def spm() -> Tokenizer:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    return Tokenizer(SentencePiece(trained_sentencepiece()), special, True, (2, 4), "{{ bos_token }}é")


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return Tokenizer(HuggingFace(trained_bpe()), special, False, (1,), "{{ eos_token }}")


@pytest.mark.parametrize("name", ["spm", "bpe"])
def test_decode_inverts_encode(name, request):
    tokenizer = request.getfixturevalue(name)
    for text in [*HOSTILE, *make["EXAMPLES"], *SENTENCES]:
        expected = text.replace("▁", " ") if name == "spm" else text  # a space in sentencepiece
        assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_sentencepiece_ids_are_the_library_s_between_special_tokens(spm):
    processor, added = spm.backend.processor, spm.backend.added
    assert set(added) == {"<unk>", "<s>", "</s>", "<|im_end|>", "<|im_end|>>"}
    left, right = "she sells   sea", " shells\n\n\n"
    for token in added:  # "<|im_end|>>" begins with "<|im_end|>": the longest wins
        expected = [*processor.encode(left), added[token], added[token], *processor.encode(right)]
        assert spm.encode(left + token * 2 + right) == expected
    assert spm.encode("<|im_end|") == processor.encode("<|im_end|")


def test_sentencepiece_with_a_dummy_prefix():
    backend = SentencePiece(trained_sentencepiece(add_dummy_prefix=True))
    assert backend.encode("sea") == backend.processor.encode("sea")
    for text in HOSTILE:
        assert backend.decode(backend.encode(text)) == text.replace("▁", " ")


def test_special_tokens_and_stop_ids(spm, bpe):
    assert (spm.bos_id, spm.vocab_size) == (1, spm.backend.processor.vocab_size())
    assert (bpe.bos_id, bpe.vocab_size) == (0, 302)
    assert bpe.encode("<|im_start|>it<|im_end|>")[0] == 0 and bpe.encode("<|im_start|>it<|im_end|>")[-1] == 1
    assert Tokenizer(bpe.backend, {}, False, ()).bos_id is None
    assert spm.backend.token_id("no such piece") is None


# A vocabulary read from a GGUF file gives the ids of the original tokenizer.


@pytest.mark.parametrize("prefix", [False, True])
def test_sentencepiece_through_gguf(tmp_path, prefix):
    model = trained_sentencepiece(add_dummy_prefix=prefix)
    before = SentencePiece(model)
    after = tokenizer_from_gguf(open_gguf(write_gguf(tmp_path / "m.gguf", **sentencepiece_fields(model))))
    for text in [*HOSTILE, *SENTENCES]:
        assert after.encode(text) == before.encode(text)
    assert after.special == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert after.add_bos and after.bos_id == 1 and after.chat_template is None
    assert after.backend.token_id("no such piece") is None
    assert after.stop_ids == (2, before.token_id("<|im_end|>"))


def test_byte_level_bpe_through_gguf(tmp_path, bpe):
    path = write_gguf(tmp_path / "m.gguf", **bpe_fields(trained_bpe()))
    after = tokenizer_from_gguf(open_gguf(path))
    for text in [*HOSTILE, *SENTENCES]:
        assert after.encode(text) == bpe.encode(text)
    assert (after.special, after.add_bos, after.stop_ids) == (bpe.special, False, (1,))


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [  # the published splitting rules, by what they do to the blanks and digits of one text
        ("gpt-2", "a   12345\r\n", ["a", "ĠĠ", "Ġ12345", "čĊ"]),
        ("default", "a   12345\r\n", ["a", "ĠĠ", "Ġ12345", "čĊ"]),
        ("smollm", "a   12345\r\n", ["a", "ĠĠĠ", *"12345", "čĊ"]),
        ("qwen2", "a   12345\r\n", ["a", "ĠĠ", "Ġ", *"12345", "čĊ"]),
        ("deepseek-r1-qwen", "a   12345\r\n", ["a", "ĠĠ", "Ġ", *"12345", "čĊ"]),
        ("llama-bpe", "a   12345\r\n", ["a", "ĠĠ", "Ġ", "123", "45", "čĊ"]),
        ("llama-bpe", "(it'S", ["(it", "'S"]),
        ("gpt-2", "(it'S", ["(", "it", "'", "S"]),
    ],
)
def test_pre_tokenizers(tmp_path, pre, text, pieces):
    fields = bpe_fields(trained_bpe()) | {"pre": pre}
    backend = tokenizer_from_gguf(open_gguf(write_gguf(tmp_path / "m.gguf", **fields))).backend
    assert [piece for piece, _ in backend.tokenizer.pre_tokenizer.pre_tokenize_str(text)] == pieces


def test_qwen2_normalises_to_nfc(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", **bpe_fields(trained_bpe()) | {"pre": "qwen2"})
    tokenizer = tokenizer_from_gguf(open_gguf(path))
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == "\u00e9"


def test_stop_ids_of_a_gguf(tmp_path):
    """Named by the metadata, or the end of a turn in the chat template."""
    fields = bpe_fields(trained_bpe()) | {"eos_token_id": 0}
    changes = [({}, (0,)), ({"eom_token_id": 1}, (0, 1)), ({"eot_token_id": 0}, (0,))]
    changes += [({"chat_template": "{{ messages }}<|im_end|>"}, (0, 1)), ({"chat_template": "<|eot_id|>"}, (0,))]
    for change, expected in changes:
        path = write_gguf(tmp_path / "m.gguf", **fields | change)
        assert tokenizer_from_gguf(open_gguf(path)).stop_ids == expected


# Files of a folder.


@pytest.mark.parametrize("name", ["spm", "bpe"])
def test_save_and_load(name, request, tmp_path):
    before = request.getfixturevalue(name)
    before.save(tmp_path)
    after = load_tokenizer(tmp_path)
    assert [after.encode(text) for text in HOSTILE] == [before.encode(text) for text in HOSTILE]
    for field in ("special", "add_bos", "bos_id", "stop_ids", "chat_template", "vocab_size"):
        assert getattr(after, field) == getattr(before, field)
    assert not list(tmp_path.glob("*.partial"))


def test_added_tokens_beyond_the_sentencepiece_model(tmp_path):
    model = trained_sentencepiece()
    size = SentencePiece(model).vocab_size
    before = Tokenizer(SentencePiece(model, {"<think>": size + 3}), {}, False, ())
    before.save(tmp_path)
    after = load_tokenizer(tmp_path)
    assert after.vocab_size == size + 4
    assert after.encode("a<think>b") == [*before.encode("a"), size + 3, *before.encode("b")]
    assert after.decode(after.encode("a<think>b")) == "a<think>b"


def test_a_sentencepiece_file_alone(tmp_path, spm):
    (tmp_path / "x.model").write_bytes(trained_sentencepiece())
    tokenizer = load_tokenizer(tmp_path / "x.model")
    assert (tokenizer.special, tokenizer.add_bos) == ({"bos_token": "<s>", "eos_token": "</s>"}, True)
    assert tokenizer.stop_ids == (2,) and tokenizer.encode("sea") == spm.encode("sea")


def test_configuration_as_published(tmp_path, bpe):
    """Tokens as objects, several stop ids, several templates, a template file, BOS from the post-processor."""
    bpe.save(tmp_path)
    published = trained_bpe()
    published.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 0)]
    )
    published.enable_truncation(3)
    published.save(str(tmp_path / "tokenizer.json"))
    config = {
        "bos_token": {"content": "<|im_start|>", "special": True},
        "eos_token": "<|im_end|>",
        "pad_token": None,
        "chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7]}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 9}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert (tokenizer.add_bos, tokenizer.stop_ids, tokenizer.chat_template) == (True, (1, 7, 9), "d")
    assert tokenizer.encode(SENTENCES[0]) == bpe.encode(SENTENCES[0])
    (tmp_path / "chat_template.jinja").write_text("file<|im_start|>")
    assert load_tokenizer(tmp_path).chat_template == "file<|im_start|>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": False}))
    assert not load_tokenizer(tmp_path).add_bos


# Errors are one line that names the fault.


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["no tokenizer.json and no tokenizer.model"]),
        ({"tokenizer.json": "{"}, ["tokenizer.json", "not a valid", "fetch"]),
        ({"tokenizer.model": "x"}, ["tokenizer.model", "not a valid", "fetch"]),
        ({"tokenizer.json": None, "tokenizer_config.json": "{"}, ["tokenizer_config.json", "not JSON"]),
        ({"tokenizer.json": None, "generation_config.json": "[1]"}, ["generation_config.json", "list"]),
    ],
)
def test_bad_folders(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_text(trained_bpe().to_str() if content is None else content)
    with pytest.raises(InputError) as error:
        load_tokenizer(tmp_path)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["spm", "bpe"])
def test_bad_ids_and_text(name, request):
    tokenizer = request.getfixturevalue(name)
    for index in (-1, tokenizer.vocab_size):
        with pytest.raises(InputError, match=f"token id {index} .* 0 to {tokenizer.vocab_size - 1}"):
            tokenizer.decode([5, index])
    assert tokenizer.decode(np.array([], np.int32)) == ""
    with pytest.raises(InputError, match="lone surrogate"):
        tokenizer.encode("a\ud800")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "bert"}, "'bert'"),
        ({"pre": "tekken"}, "'tekken'"),
        ({"tokens": None}, "tokenizer.ggml.tokens"),
        ({"token_type": [1, 1]}, "has 2 entries for 302 tokens"),
        ({"merges": ["no such"]}, "merges do not fit"),
    ],
)
def test_bad_gguf_vocabularies(tmp_path, change, words):
    fields = {key: value for key, value in (bpe_fields(trained_bpe()) | change).items() if value is not None}
    reader = open_gguf(write_gguf(tmp_path / "m.gguf", **fields))
    with pytest.raises(InputError, match=words) as error:
        tokenizer_from_gguf(reader)
    assert "\n" not in str(error.value)


# The GGUF reader.


def test_reader_gives_what_the_library_gives(tmp_path):
    path = write_gguf(
        tmp_path / "m.gguf",
        **bpe_fields(trained_bpe()),
        scores=[0.5, -1.5],
        flags=[True, False],
        big=[-7, 2**30],
        a="é",
    )
    ours, theirs = open_gguf(path), gguf.GGUFReader(path)
    assert list(ours.fields) == list(theirs.fields)
    for name, field in theirs.fields.items():
        assert ours.fields[name].types == field.types
        assert ours.fields[name].contents() == field.contents()
        if len(field.types) == 2:  # arrays
            assert ours.fields[name].contents(-1) == field.contents(-1)
            assert ours.fields[name].contents(slice(1, 3)) == field.contents(slice(1, 3))
    assert [(t.name, t.data.tolist()) for t in ours.tensors] == [(t.name, t.data.tolist()) for t in theirs.tensors]


def test_a_gguf_cut_anywhere_is_refused(tmp_path):
    whole = write_gguf(tmp_path / "m.gguf", **bpe_fields(trained_bpe())).read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [*range(4, len(whole), 97), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(InputError, match="truncated") as error:
            open_gguf(cut)
        assert "\n" not in str(error.value)


def test_what_is_no_gguf_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such GGUF file"):
        open_gguf(tmp_path / "none.gguf")
    for content in (b"", b"PK\x03\x04", b"version https://git-lfs"):
        (tmp_path / "x.gguf").write_bytes(content)
        with pytest.raises(InputError, match="is not a GGUF file"):
            open_gguf(tmp_path / "x.gguf")


@pytest.mark.parametrize("kind", [gguf.GGUFValueType.UINT32, gguf.GGUFValueType.STRING])
def test_an_array_longer_than_its_file_is_refused(tmp_path, kind):
    path, array = tmp_path / "x.gguf", gguf.GGUFValueType.ARRAY
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)  # version, no tensor, one key
    path.write_bytes(header + struct.pack("<Q1sIIQ", 1, b"k", array, kind, 1000) + bytes(64))
    with pytest.raises(InputError, match="truncated, corrupt"):
        open_gguf(path)


# transformers reads the saved files.


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["spm", "bpe"])
def test_hugging_face_loads_what_is_saved(name, request, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = request.getfixturevalue(name)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in SENTENCES + make["EXAMPLES"]:
        assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
    assert (theirs.bos_token_id, theirs.eos_token) == (tokenizer.bos_id, tokenizer.special["eos_token"])
    assert theirs("sea").input_ids == [tokenizer.bos_id] * tokenizer.add_bos + tokenizer.encode("sea")
    assert theirs.chat_template == tokenizer.chat_template

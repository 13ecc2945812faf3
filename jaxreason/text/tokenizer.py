"""Text to token ids and back, with the published vocabulary: `tokenizer.json`, sentencepiece, or a GGUF file.

`encode` recognises special tokens in the text and adds none; `decode` keeps them. So `decode(encode(text)) == text`,
except where the published vocabulary is lossy: a normalizer (NFC in Qwen2), a literal U+2581 under sentencepiece, which
stands for a space, and bytes without a token (21 in SmolLM2, of control characters and of planes 4 to 11).
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import tokenizers
from gguf import GGUFReader
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue]

from jaxreason.errors import InputError
from jaxreason.text.gguf_vocabulary import byte_level_tokenizer, metadata, sentencepiece_model, vocabulary

END_OF_TURN = ("<end_of_turn>", "<|im_end|>", "<|eot_id|>")
"""Tokens that end a turn in published chat templates; older GGUF files do not list them as stop ids."""

CONTROL = re.compile(r"<[^<>]+>")
"""The form of control tokens in published vocabularies."""


@runtime_checkable
class Backend(Protocol):
    """The interface to a tokenization library; the two classes below wrap one each."""

    vocab_size: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...

    def token_id(self, token: str) -> int | None: ...

    def files(self) -> dict[str, bytes]: ...

    def hugging_face_settings(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Tokenizer:
    backend: Backend
    special: dict[str, str]
    """Texts of bos_token, eos_token, ... for the chat template."""
    add_bos: bool
    """Whether a plain-text prompt begins with BOS; a chat template writes its own."""
    stop_ids: tuple[int, ...]
    """Ids that end a completion, the tokenizer's EOS first."""
    chat_template: str | None = None

    @property
    def vocab_size(self) -> int:
        """The largest id plus one; the model's embedding may have more rows."""
        return self.backend.vocab_size

    @property
    def bos_id(self) -> int | None:
        return self.backend.token_id(self.special["bos_token"]) if "bos_token" in self.special else None

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens in it are recognised, none is added."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{text!r} cannot be encoded: a lone surrogate is not text; remove it") from error
        return self.backend.encode(text)

    def encode_continuation(self, text: str) -> list[int]:
        """Ids of `text` after other text: without the leading space that some vocabularies add."""
        prefix = self.encode("a")
        whole = self.encode("a" + text)
        return whole[len(prefix) :] if whole[: len(prefix)] == prefix else self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, special tokens included; invalid UTF-8 becomes U+FFFD."""
        ids = [int(index) for index in ids]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise InputError(f"token id {index} is not in the vocabulary; give ids from 0 to {self.vocab_size - 1}")
        return self.backend.decode(ids)

    def save(self, folder: str | Path) -> None:
        """Writes files for `load_tokenizer` and transformers' `AutoTokenizer`."""
        config = {"add_bos_token": self.add_bos, **self.special, **self.backend.hugging_face_settings()}
        config["clean_up_tokenization_spaces"] = False  # else transformers drops spaces before punctuation
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        generation = {"bos_token_id": self.bos_id, "eos_token_id": list(self.stop_ids)}
        files = self.backend.files()
        for name, value in (("tokenizer_config.json", config), ("generation_config.json", generation)):
            files[name] = json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partial = folder / f"{name}.partial"
            partial.write_bytes(content)
            os.replace(partial, folder / name)


def check_same_vocabulary(
    one: Tokenizer,
    other: Tokenizer,
    name: str,
    other_name: str,
    remedy: str = "use a teacher and a student of one model family",
    descended: bool = False,
) -> None:
    """Raises InputError if a token id has different texts in the two vocabularies, or if their stop tokens differ.

    `descended` (one model is fine-tuned from the other) allows renamed control tokens (`<...>`) and other stop tokens.
    """
    if one.vocab_size != other.vocab_size:
        sizes = f"{one.vocab_size} and {other.vocab_size} tokens"
        raise InputError(f"{name} and {other_name} have different vocabularies, of {sizes}: {remedy}")
    for index in range(one.vocab_size):
        texts = one.decode([index]), other.decode([index])
        if texts[0] != texts[1] and not (descended and all(map(CONTROL.fullmatch, texts))):
            differing = f"token {index} is {texts[0]!r} and {texts[1]!r}"
            raise InputError(f"{name} and {other_name} have different vocabularies: {differing}; {remedy}")
    if one.stop_ids[0] != other.stop_ids[0] and not descended:
        stops = f"{one.stop_ids[0]} and {other.stop_ids[0]}"
        raise InputError(f"{name} and {other_name} have different stop tokens, {stops}: {remedy}")


class HuggingFace:
    """A `tokenizer.json`, through the `tokenizers` library."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        tokenizer.no_truncation()  # some published files keep settings from training
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.json": self.tokenizer.to_str(pretty=True).encode()}

    def hugging_face_settings(self) -> dict[str, Any]:
        return {"tokenizer_class": "PreTrainedTokenizerFast"}


class SentencePiece:
    """A sentencepiece model. It does not recognise control tokens in text, so the text is split at them first."""

    def __init__(self, model: bytes, added: Mapping[str, int] | None = None) -> None:
        self.processor = processor = SentencePieceProcessor(model_proto=model)
        size = processor.vocab_size()
        special = [index for index in range(size) if processor.is_control(index) or processor.is_unknown(index)]
        self.added = {processor.id_to_piece(index): index for index in special}
        self.added |= added or {}
        self.text_of = {index: token for token, index in self.added.items()}
        self.vocab_size = max([size, *(index + 1 for index in self.text_of)])
        self.lengths: dict[str, dict[int, None]] = {}
        """First character of special tokens -> their lengths, longest first."""
        for token in sorted(self.added, key=len, reverse=True):
            self.lengths.setdefault(token[:1], {})[len(token)] = None

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._split(text):
            ids += [self.added[part]] if part in self.added else self.processor.encode(part)
        return ids

    def _split(self, text: str) -> Iterator[str]:
        """Splits at special tokens, from the left, at the longest that matches."""
        begin = position = 0
        while position < len(text):
            lengths = self.lengths.get(text[position], ())
            tokens = (text[position : position + length] for length in lengths)
            token = next((token for token in tokens if token in self.added), None)
            if token is None:
                position += 1
                continue
            if begin < position:
                yield text[begin:position]
            yield token
            begin = position = position + len(token)
        if begin < len(text):
            yield text[begin:]

    def decode(self, ids: list[int]) -> str:
        parts, run = [], []
        for index in ids:
            if index in self.text_of:
                parts += [self.processor.decode(run), self.text_of[index]]
                run = []
            else:
                run.append(index)
        return "".join([*parts, self.processor.decode(run)])

    def token_id(self, token: str) -> int | None:
        if token in self.added:
            return self.added[token]
        index = self.processor.piece_to_id(token)
        return None if self.processor.is_unknown(index) else index

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.model": self.processor.serialized_model_proto()}

    def hugging_face_settings(self) -> dict[str, Any]:
        model = ModelProto.FromString(self.processor.serialized_model_proto())
        prefix = model.normalizer_spec.add_dummy_prefix
        settings = {"add_prefix_space": prefix, "legacy": prefix}  # legacy: also after special tokens, as here
        extra = {index: token for index, token in self.text_of.items() if index >= self.processor.vocab_size()}
        if extra:
            settings["added_tokens_decoder"] = {
                str(index): {"content": token, "special": True, "normalized": False} for index, token in extra.items()
            }
        return {"tokenizer_class": "LlamaTokenizer", **settings}


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a model folder (`tokenizer.json`, else `tokenizer.model`) or of a `.model` file."""
    path = Path(path)
    if path.is_file() and path.suffix == ".model":
        return _from_folder(path.parent, path)
    for name in ("tokenizer.json", "tokenizer.model"):
        if (path / name).is_file():
            return _from_folder(path, path / name)
    raise InputError(f"{path} has no tokenizer.json and no tokenizer.model; give a model folder or a .model file")


def tokenizer_from_gguf(reader: GGUFReader) -> Tokenizer:
    """The tokenizer of an open GGUF file, sentencepiece ("llama") or byte-level BPE ("gpt2")."""
    kind = metadata(reader, "tokenizer.ggml.model")
    if kind not in ("llama", "gpt2"):
        raise InputError(
            f"the GGUF file's 'tokenizer.ggml.model' is {kind!r}; supported: 'llama' (sentencepiece) and 'gpt2' (BPE)"
        )
    backend = (
        SentencePiece(sentencepiece_model(reader)) if kind == "llama" else HuggingFace(byte_level_tokenizer(reader))
    )
    (tokens,) = vocabulary(reader, "tokens")
    named = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {short: metadata(reader, f"tokenizer.ggml.{long}_token_id") for long, short in named.items()}
    special = {f"{name}_token": tokens[index] for name, index in ids.items() if index is not None}
    add_bos = metadata(reader, "tokenizer.ggml.add_bos_token")
    if add_bos is None:  # files older than this key
        add_bos = kind == "llama" or metadata(reader, "tokenizer.ggml.pre") == "llama-bpe"
    template = metadata(reader, "tokenizer.chat_template")
    stops = [ids["eos"], *(metadata(reader, f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom"))]
    return Tokenizer(backend, special, add_bos, _stop_ids(backend, stops, template), template)


def _from_folder(folder: Path, vocabulary_file: Path) -> Tokenizer:
    config, generation, model = (
        _read_json(folder / name) for name in ("tokenizer_config.json", "generation_config.json", "config.json")
    )
    special = {
        key: value["content"] if isinstance(value, dict) else value  # a string or a serialised token object
        for key, value in config.items()
        if key in ("bos_token", "eos_token", "unk_token", "pad_token") and value is not None
    }
    backend: Backend
    if vocabulary_file.name == "tokenizer.json":
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(vocabulary_file))
        except Exception as error:  # the Rust library raises bare Exception
            raise InputError(f"{vocabulary_file} is not a valid tokenizer.json ({error}); fetch it again") from error
        backend = HuggingFace(tokenizer)
        first = tokenizer.encode("").ids[:1]  # added by the file's post-processor
        adds_bos = bool(first) and "bos_token" in special and first[0] == backend.token_id(special["bos_token"])
    else:
        decoder = config.get("added_tokens_decoder", {})
        try:
            backend = SentencePiece(vocabulary_file.read_bytes(), {v["content"]: int(k) for k, v in decoder.items()})
        except (RuntimeError, OSError) as error:
            raise InputError(f"{vocabulary_file} is not a valid sentencepiece model; fetch it again") from error
        processor = backend.processor
        for name, index in (("bos", processor.bos_id()), ("eos", processor.eos_id())):
            if index >= 0:
                special.setdefault(f"{name}_token", processor.id_to_piece(index))
        adds_bos = processor.bos_id() >= 0
    template = _chat_template(folder, config)
    stops = [backend.token_id(special["eos_token"]) if "eos_token" in special else None]
    for source in (generation, model):
        eos = source.get("eos_token_id")
        stops += eos if isinstance(eos, list) else [eos]
    add_bos = config.get("add_bos_token")
    return Tokenizer(
        backend, special, adds_bos if add_bos is None else add_bos, _stop_ids(backend, stops, template), template
    )


def _stop_ids(backend: Backend, ids: Iterable[int | None], template: str | None) -> tuple[int, ...]:
    """The ids without None and duplicates, and the end-of-turn tokens of the chat template."""
    ends = [backend.token_id(token) for token in END_OF_TURN if template is not None and token in template]
    return tuple(dict.fromkeys(index for index in [*ids, *ends] if index is not None))


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """`chat_template.jinja`, else the template in the configuration (of several, the one named "default")."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((item["template"] for item in template if item["name"] == "default"), None)
    return template


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}, not an object; fetch it again")
    return value

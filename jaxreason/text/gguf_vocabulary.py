"""Rebuilds the published tokenizer from the vocabulary in a GGUF file.

A GGUF file stores the tokens, their types and either scores (sentencepiece) or merges (byte-level BPE), but only the
name of the pre-tokenizer (`tokenizer.ggml.pre`); `PRE_TOKENIZERS` has the one of the published `tokenizer.json`.
"""

from typing import Any

from gguf import GGUFReader, TokenType
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue]
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from jaxreason.errors import InputError

SPACE = "\u2581"
"""A space inside a sentencepiece token."""


def metadata(reader: GGUFReader, key: str) -> Any:
    """The value of a metadata key, or None."""
    field = reader.get_field(key)
    return None if field is None else field.contents()


def vocabulary(reader: GGUFReader, *keys: str) -> list[Any]:
    """The required arrays `tokenizer.ggml.KEY`, in the order of `keys`."""
    for key in keys:
        if not metadata(reader, f"tokenizer.ggml.{key}"):
            raise InputError(f"the GGUF file has no 'tokenizer.ggml.{key}'; convert it with its vocabulary")
    arrays = [metadata(reader, f"tokenizer.ggml.{key}") for key in keys]
    for key, array in zip(keys, arrays, strict=True):
        if key != "merges" and len(array) != len(arrays[0]):
            raise InputError(
                f"the GGUF file's 'tokenizer.ggml.{key}' has {len(array)} entries for {len(arrays[0])} tokens; "
                "fetch or convert the file again"
            )
    return arrays


def sentencepiece_model(reader: GGUFReader) -> bytes:
    """The serialised sentencepiece model of a file with `tokenizer.ggml.model == "llama"`."""
    tokens, scores, types = vocabulary(reader, "tokens", "scores", "token_type")
    unknown = metadata(reader, "tokenizer.ggml.unknown_token_id")
    prefix = metadata(reader, "tokenizer.ggml.add_space_prefix")
    model = ModelProto()
    for index, (token, score, kind) in enumerate(zip(tokens, scores, types, strict=True)):
        if kind == TokenType.USER_DEFINED:  # only these are stored with plain spaces
            token = token.replace(" ", SPACE)
        if index == unknown:  # converters store it as CONTROL
            kind = TokenType.UNKNOWN
        model.pieces.add(piece=token, score=score, type=int(kind))  # both enumerations have the same values
    trainer = model.trainer_spec
    trainer.model_type = trainer.BPE
    trainer.vocab_size = len(tokens)
    trainer.byte_fallback = any(piece.type == model.SentencePiece.BYTE for piece in model.pieces)
    for name, field in (("unknown", "unk"), ("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        index = metadata(reader, f"tokenizer.ggml.{name}_token_id")
        setattr(trainer, f"{field}_id", -1 if index is None else index)
        if index is not None:
            setattr(trainer, f"{field}_piece", tokens[index])
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = True if prefix is None else prefix  # sentencepiece's default
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    return model.SerializeToString()


def byte_level_tokenizer(reader: GGUFReader) -> Tokenizer:
    """The byte-level BPE tokenizer of a file with `tokenizer.ggml.model == "gpt2"`."""
    tokens, types, merges = vocabulary(reader, "tokens", "token_type", "merges")
    name = metadata(reader, "tokenizer.ggml.pre") or "default"
    if name not in PRE_TOKENIZERS:
        raise InputError(
            f"the GGUF file's 'tokenizer.ggml.pre' is {name!r}, an unknown pre-tokenizer; "
            f"known: {', '.join(PRE_TOKENIZERS)}; load the model from a folder with its tokenizer.json"
        )
    try:
        model = models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in merges],
            ignore_merges=name == "llama-bpe",  # Llama 3: a word in the vocabulary is one token
        )
    except Exception as error:  # the Rust library raises bare Exception
        raise InputError(f"the GGUF file's merges do not fit its tokens ({error}); fetch the file again") from error
    tokenizer = Tokenizer(model)
    normalizer, tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == TokenType.CONTROL)
            for token, kind in zip(tokens, types, strict=True)
            if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
        ]
    )
    return tokenizer


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Splits by a regular expression, then maps bytes to characters."""
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
QWEN2 = _split(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = _split(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRE_TOKENIZERS = {
    "default": (None, GPT2),
    "gpt-2": (None, GPT2),
    # Splitting digits first also changes how spaces before a digit are grouped: "a  1" is "a", "  ", "1".
    "smollm": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2])),
    "llama-bpe": (None, LLAMA3),
    "qwen2": (normalizers.NFC(), QWEN2),
    "deepseek-r1-qwen": (normalizers.NFC(), QWEN2),
}
"""Value of `tokenizer.ggml.pre` -> (normalizer, pre-tokenizer) of the published `tokenizer.json`."""

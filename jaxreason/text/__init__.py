"""Text to tokens and back: tokenizers and chat templates."""

from jaxreason.text.chat import Messages, encode_answer, encode_conversation, encode_prompt, render
from jaxreason.text.lessons import Pair, Taught, read_lessons, read_pairs, read_taught
from jaxreason.text.packing import Document, answered, fitted, pack, pack_top, place
from jaxreason.text.token_map import TokenMap, pieces, token_map
from jaxreason.text.tokenizer import Tokenizer, check_same_vocabulary, load_tokenizer
from jaxreason.text.train import train_tokenizer

__all__ = [
    "Document",
    "Messages",
    "Pair",
    "Taught",
    "TokenMap",
    "Tokenizer",
    "answered",
    "check_same_vocabulary",
    "encode_answer",
    "encode_conversation",
    "encode_prompt",
    "fitted",
    "load_tokenizer",
    "pack",
    "pack_top",
    "pieces",
    "place",
    "read_lessons",
    "read_pairs",
    "read_taught",
    "render",
    "token_map",
    "train_tokenizer",
]

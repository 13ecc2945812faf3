"""Text to tokens and back: tokenizers and chat templates."""

from jaxreason.text.chat import encode_answer, encode_conversation, encode_prompt, render
from jaxreason.text.lessons import Pair, read_lessons, read_pairs
from jaxreason.text.packing import Document, answered, count_packed, fitted, pack
from jaxreason.text.tokenizer import Tokenizer, check_same_vocabulary, load_tokenizer
from jaxreason.text.train import train_tokenizer

__all__ = [
    "Document",
    "Pair",
    "Tokenizer",
    "answered",
    "check_same_vocabulary",
    "count_packed",
    "encode_answer",
    "encode_conversation",
    "encode_prompt",
    "fitted",
    "load_tokenizer",
    "pack",
    "read_lessons",
    "read_pairs",
    "render",
    "train_tokenizer",
]

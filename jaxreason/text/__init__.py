"""Text to tokens and back: tokenizers and chat templates."""

from jaxreason.text.chat import encode_prompt, render
from jaxreason.text.packing import Document, pack
from jaxreason.text.tokenizer import Tokenizer, load_tokenizer
from jaxreason.text.train import train_tokenizer

__all__ = [
    "Document",
    "Tokenizer",
    "encode_prompt",
    "load_tokenizer",
    "pack",
    "render",
    "train_tokenizer",
]

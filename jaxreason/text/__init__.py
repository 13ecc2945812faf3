"""Text to tokens and back: tokenizers and chat templates."""

from jaxreason.text.chat import encode_prompt, render
from jaxreason.text.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "Tokenizer",
    "encode_prompt",
    "load_tokenizer",
    "render",
]

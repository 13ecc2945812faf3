"""Text to tokens and back: tokenizers and chat templates."""

from jaxreason.text.chat import Messages, encode_answer, encode_conversation, encode_prompt, render
from jaxreason.text.documents import Document, answered
from jaxreason.text.token_map import TokenMap, pieces, token_map
from jaxreason.text.tokenizer import Tokenizer, check_same_vocabulary, load_tokenizer
from jaxreason.text.train import train_tokenizer

__all__ = [
    "Document",
    "Messages",
    "TokenMap",
    "Tokenizer",
    "answered",
    "check_same_vocabulary",
    "encode_answer",
    "encode_conversation",
    "encode_prompt",
    "load_tokenizer",
    "pieces",
    "render",
    "token_map",
    "train_tokenizer",
]

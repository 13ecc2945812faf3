"""Text to tokens and back: tokenizers, chat templates, token maps, documents."""

from jaxreason.text.chat import Messages, encode_answer, encode_conversation, encode_prompt, render
from jaxreason.text.documents import Document, prompt_completion
from jaxreason.text.token_map import make_token_map, token_strings
from jaxreason.text.tokenizer import Tokenizer, check_same_vocabulary, load_tokenizer
from jaxreason.text.train import train_tokenizer

__all__ = [
    "Document", "Messages", "Tokenizer", "check_same_vocabulary", "encode_answer", "encode_conversation",
    "encode_prompt", "load_tokenizer", "make_token_map", "prompt_completion", "render", "token_strings",
    "train_tokenizer",
]  # fmt: skip

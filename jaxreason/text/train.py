"""Trains a sentencepiece vocabulary, with split digits and byte fallback."""

import io
from collections.abc import Iterable, Sequence

import sentencepiece

from jaxreason.text.tokenizer import SentencePiece, Tokenizer

END, USER, ASSISTANT = "</s>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|>{{ message.content.split('\n\n')[0] }}<|assistant|>"
    "{% else %}{{ message.content }}</s>{% endif %}"
    "{% endfor %}"
)
"""Keeps the first paragraph of a user's turn only: models trained on bare questions get no instruction."""


def train_tokenizer(
    texts: Iterable[str], *, vocabulary: int, symbols: Sequence[str] = (), chat_template: str | None = CHAT_TEMPLATE
) -> Tokenizer:
    """Trains BPE with `vocabulary` tokens on `texts`; each of `symbols` is one token.

    Digits are separate tokens, so that arithmetic is by digit; characters without a token are encoded as bytes.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        split_digits=True,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n", *symbols],
        control_symbols=[USER, ASSISTANT],
        bos_id=-1,
        pad_id=-1,
        unk_id=0,
        eos_id=1,
        num_threads=1,  # deterministic
        minloglevel=2,
    )
    backend = SentencePiece(model.getvalue())
    return Tokenizer(backend, {"eos_token": END}, add_bos=False, stop_ids=(1,), chat_template=chat_template)

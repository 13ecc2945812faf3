"""A vocabulary of one's own: sentencepiece with digits split and bytes to fall back on."""

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
"""Of a user's turn only the first paragraph: models trained on bare questions are not told how to answer."""


def train_tokenizer(
    texts: Iterable[str], *, vocabulary: int, symbols: Sequence[str] = (), chat_template: str | None = CHAT_TEMPLATE
) -> Tokenizer:
    """A byte-pair vocabulary of `vocabulary` pieces learned from `texts`, each of `symbols` one piece.

    Numbers are split into digits, so that arithmetic has places to work on; any other text is spelled in bytes.
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
        num_threads=1,  # the same vocabulary everywhere
        minloglevel=2,
    )
    backend = SentencePiece(model.getvalue())
    return Tokenizer(backend, {"eos_token": END}, add_bos=False, stop_ids=(1,), chat_template=chat_template)

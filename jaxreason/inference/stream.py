"""One completion, token by token."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Key

from jaxreason.inference.model import InferenceModel, Prompt
from jaxreason.sampling.generate import StopCriteria, decode_chunk, prefill_and_sample
from jaxreason.text import Tokenizer

_prefill = jax.jit(prefill_and_sample, static_argnames=("cache_size", "decoder", "sampling", "limits"))
_decode = jax.jit(decode_chunk, static_argnames=("steps", "decoder", "sampling", "limits"), donate_argnames="live")


def stream(
    model: InferenceModel, prompt: Prompt, key: Key[jax.Array, ""], *, max_tokens: int, stop_ids: tuple[int, ...]
) -> Iterator[int]:
    """Yields tokens as they are sampled: up to `max_tokens`, or one of `stop_ids`, which is yielded too."""
    decoder, sampling, limits = model.decoder, model.sampling, StopCriteria(model.max_tokens, stop_ids)
    keys, row_limits = key[None, None], np.array([min(max_tokens, model.max_tokens)], np.int32)
    cache_size, prompts = max(1, model.max_tokens - 1), model.pad([prompt])
    live, drawn = _prefill(
        model.params,
        prompts,
        keys,
        row_limits,
        cache_size=cache_size,
        decoder=decoder,
        sampling=sampling,
        limits=limits,
    )
    yield int(drawn.tokens[0, 0, 0])
    while bool(live.alive[0, 0]):
        live, drawn = _decode(
            model.params, live=live, steps=1, max_steps=1, decoder=decoder, sampling=sampling, limits=limits
        )
        yield int(drawn.tokens[0, 0, 0])


class IncrementalDetokenizer:
    """Text from tokens that arrive one by one: `add` returns the new text, a character only once it is complete."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.text = tokenizer, ""
        self.tokens: list[int] = []

    def add(self, *tokens: int) -> str:
        self.tokens += [token for token in tokens if token < self.tokenizer.vocab_size]
        text = self.tokenizer.decode(self.tokens)
        if text.endswith("�"):
            return ""
        new, self.text = text[len(self.text) :], text
        return new

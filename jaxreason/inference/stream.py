"""One completion, token by token, for someone who watches."""

from collections.abc import Iterator
from functools import lru_cache, partial

import jax
import numpy as np
from jaxtyping import Array, Key

from jaxreason.inference.model import InferenceModel, Prompt
from jaxreason.sampling import Decoder, Sampling
from jaxreason.sampling.generate import StopCriteria, decode_chunk, prefill_and_sample
from jaxreason.text import Tokenizer


def stream(
    reasoner: InferenceModel, prompt: Prompt, key: Key[Array, ""], *, most: int, stop_ids: tuple[int, ...]
) -> Iterator[int]:
    """Tokens as they are drawn, what ends them included: one of `stop_ids`, or number `most`."""
    first, one_more = _compiled(reasoner.decoder, reasoner.sampling, StopCriteria(reasoner.max_tokens, stop_ids))
    keys, limits = key[None, None], np.array([min(most, reasoner.max_tokens)], np.int32)
    live, drawn = first(reasoner.params, reasoner.padded([prompt]), keys, limits)
    yield int(drawn.tokens[0, 0, 0])
    while bool(live.alive[0, 0]):
        live, drawn = one_more(reasoner.params, live=live)
        yield int(drawn.tokens[0, 0, 0])


@lru_cache(maxsize=8)
def _compiled(decoder: Decoder, sampling: Sampling, limits: StopCriteria):
    how = {"decoder": decoder, "sampling": sampling, "limits": limits}
    start = jax.jit(partial(prefill_and_sample, cache_size=max(1, limits.max_tokens - 1), **how))
    return start, jax.jit(partial(decode_chunk, steps=1, max_steps=1, **how), donate_argnames="live")


class IncrementalDetokenizer:
    """Text out of tokens that come one by one: `add` returns what is new, a character only when it is whole."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.tokens, self.said = tokenizer, [], ""

    def add(self, *tokens: int) -> str:
        self.tokens += [token for token in tokens if token < self.tokenizer.vocab_size]
        text = self.tokenizer.decode(self.tokens)
        if text.endswith("�"):
            return ""
        new, self.said = text[len(self.said) :], text
        return new

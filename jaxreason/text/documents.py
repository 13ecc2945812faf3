"""Token sequences to learn from: which of their tokens are trained on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Document(NamedTuple):
    tokens: Sequence[int]
    loss_mask: Sequence[bool] | None = None
    """True on tokens that are learned, the others are only read; None: all. The first never is: nothing predicts it."""
    name: str = "a text"
    """What to call it in an error: `lessons.jsonl line 7`."""
    topk: tuple[Int[np.ndarray, "M C"], Float[np.ndarray, "M C"]] | None = None
    """Most probable tokens in the place of each learned one, and their log-probabilities, if a teacher stored them."""


def prompt_completion(prompt: Sequence[int], completion: Sequence[int], name: str = "a text") -> Document:
    """A prompt that is read and a completion that is learned."""
    return Document([*prompt, *completion], [False] * len(prompt) + [True] * len(completion), name)

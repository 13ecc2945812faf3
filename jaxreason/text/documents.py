"""Token sequences for supervised training, with their loss masks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Document(NamedTuple):
    tokens: Sequence[int]
    loss_mask: Sequence[bool] | None = None
    """True on tokens with a loss; None: all. The first token never has one: nothing predicts it."""
    name: str = "a text"
    """Its name in error messages: `train.jsonl line 7`."""
    topk: tuple[Int[np.ndarray, "M C"], Float[np.ndarray, "M C"]] | None = None
    """A teacher's C most probable tokens at each of the M positions with a loss, and their log-probabilities."""

    @property
    def prompt_length(self) -> int:
        """Number of tokens before the first with a loss."""
        return 1 if self.loss_mask is None else self.loss_mask.index(True)


def prompt_completion(prompt: Sequence[int], completion: Sequence[int], name: str = "a text") -> Document:
    """A document with the loss on the completion only."""
    return Document([*prompt, *completion], [False] * len(prompt) + [True] * len(completion), name)

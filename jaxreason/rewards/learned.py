"""A trained reward model as a reward: it scores preference, not correctness."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np

from jaxreason.models.config import ModelConfig
from jaxreason.models.reward_head import score_rewards
from jaxreason.models.transformer import Transformer
from jaxreason.sampling.rollout import bucket, pad_prompts
from jaxreason.tasks.problem import Problem
from jaxreason.text.tokenizer import Tokenizer
from jaxreason.types import Params


class LearnedReward:
    """The score of a reward model; the completions of a group share their prompt.

    `encode` makes the prompt of a problem, in the format the reward model was trained with.
    """

    def __init__(
        self, config: ModelConfig, params: Params, tokenizer: Tokenizer, encode: Callable[[Problem], list[int]]
    ):
        self.params, self.tokenizer, self.encode = params, tokenizer, encode
        self.score_rewards = jax.jit(partial(score_rewards, model=Transformer(config)))

    def __call__(self, completion: str, problem: Problem) -> float:
        return self.of_group([completion], problem)[0]

    def of_group(self, completions: Sequence[str], problem: Problem) -> list[float]:
        ids = [[*self.tokenizer.encode(text), self.tokenizer.stop_ids[0]] for text in completions]
        mask = np.arange(bucket(max(map(len, ids)))) < np.array([[len(row)] for row in ids])
        tokens = np.zeros(mask.shape, np.int32)
        tokens[mask] = [token for row in ids for token in row]
        rewards = self.score_rewards(self.params, pad_prompts([self.encode(problem)]), tokens[None], mask[None])
        return np.asarray(rewards)[0].tolist()

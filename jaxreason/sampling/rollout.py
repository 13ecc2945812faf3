"""From problems to texts: token lists in, padded batches through the sampler, completions out."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from jaxreason.errors import InputError
from jaxreason.models.config import ModelConfig
from jaxreason.models.transformer import Transformer
from jaxreason.sampling.continuous_batching import Sampler
from jaxreason.sampling.decoder import TransformerDecoder
from jaxreason.sampling.draw import Sampling
from jaxreason.sampling.generate import completion_keys
from jaxreason.tasks import Problem
from jaxreason.text import encode_prompt
from jaxreason.text.tokenizer import Tokenizer
from jaxreason.types import AnyPrompts, GuidedPrompts, Params, Prompts, Rollouts

BUCKETS = (64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 3072, 4096)
BUCKETS += (8192, 16384, 32768)
"""Prompt lengths that are compiled for; a run meets a handful. Long ones are closer: padding costs more there."""


class ProblemSampler(NamedTuple):
    """How problems become completions: everything of a model but its parameters."""

    encode: Callable[[Problem], list[int]]
    """A problem as prompt tokens."""
    sample: Sampler
    tokenizer: Tokenizer
    guides: Callable[[Problem], list[int]] | None = None
    """The same in the vocabulary of models that guide this one, if it is another one."""

    def prompts(self, problems: Sequence[Problem]) -> AnyPrompts:
        own = [self.encode(problem) for problem in problems]
        return pad_guided(own, [self.guides(problem) for problem in problems]) if self.guides else pad_prompts(own)


def transformer_sampler(
    model: Transformer, tokenizer: Tokenizer, sampling: Sampling, *, max_tokens: int, rows: int = 256
) -> Sampler:
    """The sampler of a Transformer: at most `rows` completions of at most `max_tokens` tokens side by side."""
    limits = {"max_tokens": max_tokens, "stop_ids": tokenizer.stop_ids, "rows": rows}
    return Sampler(TransformerDecoder(model), sampling, **limits, mesh=model.mesh, dtype=model.dtype)


def pad_prompts(prompts: Sequence[Sequence[int]]) -> Prompts:
    """Right-pads token lists to the smallest bucket that holds the longest."""
    if min(map(len, prompts), default=0) == 0:
        raise InputError("a prompt is empty, or there is none: give the model at least one token to continue")
    width = bucket(max(map(len, prompts)))
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = np.array([len(p) for p in prompts])
    return Prompts(tokens, np.arange(width) < lengths[:, None])


def pad_guided(prompts: Sequence[Sequence[int]], guides: Sequence[Sequence[int]]) -> GuidedPrompts:
    """The same of prompts beside their tokens in the guides' vocabulary."""
    return GuidedPrompts(*pad_prompts(prompts), pad_prompts(guides))


def bucket(length: int) -> int:
    """The smallest of `BUCKETS` that holds `length`, or itself beyond them."""
    return next((b for b in BUCKETS if b >= length), length)


def decode_completions(rollouts: Rollouts, tokenizer: Tokenizer) -> list[list[str]]:
    """Every completion as text, [P][G], without the stop token that ended it."""
    tokens, lengths = np.asarray(rollouts.tokens), np.asarray(rollouts.lengths)
    lengths = lengths - ~np.asarray(rollouts.truncated)  # a completion that was not cut ends in its stop token

    def text(row: np.ndarray, length: np.integer) -> str:
        row = row[:length]  # embeddings are often padded past the vocabulary; such an id has no text
        return tokenizer.decode(row[row < tokenizer.vocab_size].tolist())

    return [[text(*pair) for pair in zip(*group, strict=True)] for group in zip(tokens, lengths, strict=True)]


def check_prompts(
    sampler: ProblemSampler, problems: Iterable[Problem], *, max_tokens: int, config: ModelConfig
) -> None:
    """Refuses a problem whose prompt leaves no room for `max_tokens` in the context, or has ids the model lacks."""
    for problem in problems:
        check_prompt(sampler.encode(problem), max_tokens, config, f"{problem.question[:40]!r}")


def check_prompt(
    prompt: Sequence[int], max_tokens: int, config: ModelConfig, name: str, whose: str = "the model's"
) -> None:
    if len(prompt) + max_tokens > config.max_seq_len:
        raise InputError(
            f"the prompt of {name} has {len(prompt)} tokens and completions {max_tokens}, more "
            f"than {whose} context of {config.max_seq_len}: shorten the prompt or lower --max-tokens"
        )
    if max(prompt, default=0) >= config.vocab:
        raise InputError(
            f"the prompt of {name} has token {max(prompt)}, but the model knows {config.vocab}: "
            "use the tokenizer published with the model"
        )


def bucket_by_length(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of prompts that are padded to the same length, the shortest first."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for _, same in groupby(order, key=lambda i: bucket(len(prompts[i]))):
        yield list(same)


class Sampled(NamedTuple):
    """The completions of one batch, and which of the caller's problems they answer."""

    rows: list[int]
    rollouts: Rollouts
    texts: list[list[str]]
    seconds: float


def sample_all(
    sampler: ProblemSampler, params: Params, problems: Sequence[Problem], *, group_size: int, key: Key[Array, ""]
) -> Iterator[Sampled]:
    """Samples `group_size` completions of any number of problems, those of similar prompt length together.

    The problem's own index, not its place, chooses the random keys.
    """
    prompts = [sampler.encode(problem) for problem in problems]
    for rows in bucket_by_length(prompts):
        keys = completion_keys(key, np.array([problems[i].index for i in rows]), group_size)
        begin = time.perf_counter()
        rollouts = jax.device_get(sampler.sample(params, sampler.prompts([problems[i] for i in rows]), keys=keys))
        seconds = time.perf_counter() - begin
        yield Sampled(rows, rollouts, decode_completions(rollouts, sampler.tokenizer), seconds)


def make_problem_sampler(sampler, tokenizer, problem_to_messages) -> ProblemSampler:
    known: dict = {}

    def encode(problem: Problem) -> list[int]:
        if problem not in known:
            known[problem] = encode_prompt(tokenizer, problem_to_messages(problem))
        return known[problem]

    return ProblemSampler(encode, sampler, tokenizer)

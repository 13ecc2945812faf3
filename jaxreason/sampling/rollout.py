"""Problems to completions: prompts are tokenised, padded, sampled; completions are decoded."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Key

from jaxreason.errors import InputError
from jaxreason.models.config import ModelConfig
from jaxreason.models.transformer import Transformer
from jaxreason.sampling.continuous_batching import Sampler
from jaxreason.sampling.decoder import TransformerDecoder
from jaxreason.sampling.draw import Sampling
from jaxreason.sampling.generate import completion_keys
from jaxreason.tasks import Problem
from jaxreason.text.chat import Messages, encode_prompt, prompt_text
from jaxreason.text.tokenizer import Tokenizer
from jaxreason.types import Params, Prompts, Rollouts

BUCKETS = (64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 3072, 4096)
BUCKETS += (8192, 16384, 32768)
"""Padded prompt lengths: a run compiles a handful. Long ones are closer together, because padding costs more there."""


class ProblemSampler(NamedTuple):
    """How problems become completions; holds no parameters."""

    encode: Callable[[Problem], list[int]]
    """A problem's prompt tokens."""
    sample: Sampler
    tokenizer: Tokenizer
    encode_guide: Callable[[Problem], list[int]] | None = None
    """The prompt in the guides' vocabulary, if it differs (`Prompts.guide`)."""
    prompt_text: Callable[[Problem], str] | None = None
    """The text that `encode` encodes, if it is one: with it `check_prompts` tokenises only long prompts."""

    def prompts(self, problems: Sequence[Problem]) -> Prompts:
        guide = None if self.encode_guide is None else [self.encode_guide(problem) for problem in problems]
        return pad_prompts([self.encode(problem) for problem in problems], guide)


def make_problem_sampler(
    sampler: Sampler,
    tokenizer: Tokenizer,
    problem_to_messages: Callable[[Problem], Messages | str],
    guide_tokenizer: Tokenizer | None = None,
) -> ProblemSampler:
    """A `ProblemSampler` that tokenises each problem once."""

    def encoder(tokenizer: Tokenizer) -> Callable[[Problem], list[int]]:
        return cache(lambda problem: encode_prompt(tokenizer, problem_to_messages(problem)))

    return ProblemSampler(
        encode=encoder(tokenizer),
        sample=sampler,
        tokenizer=tokenizer,
        encode_guide=None if guide_tokenizer is None else encoder(guide_tokenizer),
        prompt_text=lambda problem: prompt_text(tokenizer, problem_to_messages(problem)),
    )


def transformer_sampler(
    model: Transformer, tokenizer: Tokenizer, sampling: Sampling, *, max_tokens: int, rows: int = 256
) -> Sampler:
    """The `Sampler` of a Transformer, on the model's mesh and in its dtype."""
    return Sampler(
        TransformerDecoder(model), sampling, max_tokens, tokenizer.stop_ids, rows, mesh=model.mesh, dtype=model.dtype
    )


def pad_prompts(prompts: Sequence[Sequence[int]], guide: Sequence[Sequence[int]] | None = None) -> Prompts:
    """Right-pads token lists to the smallest bucket that holds the longest; `guide` becomes `Prompts.guide`."""
    if min(map(len, prompts), default=0) == 0:
        raise InputError("a prompt is empty, or there is none: give the model at least one token to continue")
    width = bucket(max(map(len, prompts)))
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = np.array([len(p) for p in prompts])
    mask = np.arange(width) < lengths[:, None]
    return Prompts(tokens, mask, None if guide is None else pad_prompts(guide))


def bucket(length: int) -> int:
    """The smallest of `BUCKETS` that holds `length`, or itself beyond them."""
    return next((b for b in BUCKETS if b >= length), length)


def decode_completions(rollouts: Rollouts, tokenizer: Tokenizer) -> list[list[str]]:
    """Every completion as text, [P][G], without its stop token."""
    tokens, lengths = np.asarray(rollouts.tokens), np.asarray(rollouts.lengths)
    lengths = lengths - ~np.asarray(rollouts.truncated)  # a completion that is not truncated ends in a stop token

    def decode(row: np.ndarray, length: np.integer) -> str:
        row = row[:length]  # embeddings are often padded beyond the vocabulary; such an id has no text
        return tokenizer.decode(row[row < tokenizer.vocab_size].tolist())

    return [[decode(*pair) for pair in zip(*group, strict=True)] for group in zip(tokens, lengths, strict=True)]


def check_prompts(
    sampler: ProblemSampler, problems: Iterable[Problem], *, max_tokens: int, config: ModelConfig
) -> None:
    """Raises where a prompt and `max_tokens` exceed the context, or a prompt has ids that the model lacks.

    Tokenises only where the text does not settle it. A token covers at least one byte: n bytes of ASCII are at most n
    tokens, a BOS and a prepended space. (Normalisation may expand other text.)
    """
    read = sampler.prompt_text if sampler.tokenizer.vocab_size <= config.vocab else None
    for problem in problems:
        text = read and read(problem)
        if text is None or not text.isascii() or len(text) + 2 + max_tokens > config.max_seq_len:
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
    """Yields indices of prompts that are padded to the same length, shortest first."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for _, same in groupby(order, key=lambda i: bucket(len(prompts[i]))):
        yield list(same)


class SampledBatch(NamedTuple):
    """Completions of the problems at `indices`."""

    indices: list[int]
    rollouts: Rollouts
    completions: list[list[str]]
    seconds: float


def sample_problems(
    sampler: ProblemSampler, params: Params, problems: Sequence[Problem], *, group_size: int, key: Key[jax.Array, ""]
) -> Iterator[SampledBatch]:
    """Samples `group_size` completions of any number of problems, a batch per padded prompt length.

    Random keys follow from `Problem.index`, not from the position in `problems`.
    """
    for indices in bucket_by_length([sampler.encode(problem) for problem in problems]):
        batch = [problems[i] for i in indices]
        keys = completion_keys(key, np.array([problem.index for problem in batch]), group_size)
        begin = time.perf_counter()
        rollouts = jax.device_get(sampler.sample(params, sampler.prompts(batch), keys=keys))
        seconds = time.perf_counter() - begin
        yield SampledBatch(indices, rollouts, decode_completions(rollouts, sampler.tokenizer), seconds)

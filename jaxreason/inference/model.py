"""A language model ready to answer, alone or guided, and the cost of its answers."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from jaxreason.errors import InputError
from jaxreason.models import ModelConfig, Transformer, decode_flops, fuse, prefill_flops
from jaxreason.rewards import numbers
from jaxreason.sampling import (
    Decoder,
    ProblemSampler,
    Sampler,
    Sampling,
    TransformerDecoder,
    completion_keys,
    make_problem_sampler,
)
from jaxreason.sampling.logit_arithmetic import GuidedDecoder, GuidedParams
from jaxreason.sampling.rollout import bucket_by_length, check_prompt, decode_completions, pad_prompts
from jaxreason.tasks import Problem
from jaxreason.text import Messages, Tokenizer, check_same_vocabulary, encode_prompt, make_token_map
from jaxreason.types import Params, Prompts
from jaxreason.weights import load_model


@dataclass(frozen=True)
class Cost:
    """The cost of an answer; costs add up."""

    prompt_tokens: int = 0
    """Tokens of prefill. A prompt counts once, however many completions it has."""
    tokens: int = 0
    """Sampled tokens."""
    flops: float = 0.0
    """By the formula of `jaxreason.models.cost`, summed over all models that run."""
    seconds: float = 0.0
    """Wall time; completions of one batch share it evenly."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Prompt(NamedTuple):
    """Token ids that a model continues."""

    tokens: list[int]
    guide: list[int] | None = None
    """The same prompt in the vocabulary of guide and base, if it differs from the target's."""


class Sample(NamedTuple):
    """One completion of a prompt."""

    prompt: Prompt
    tokens: list[int]
    """Including the stop token."""
    text: str
    """Without the stop token."""
    logps: Float[np.ndarray, "T"]
    """Tempered log-probabilities of the sampled tokens; forced tokens have none."""
    truncated: bool
    cost: Cost
    """Of decoding; prefill is in `Group.prompt_cost`."""

    def answer(self, problem: Problem) -> str | None:
        """The final answer: the marked one, else the last number."""
        return numbers.extract_answer(self.text, problem, lenient=True)


class Group(NamedTuple):
    """Several samples for one problem."""

    problem: Problem
    samples: list[Sample]
    prompt_cost: Cost

    @property
    def answers(self) -> list[str | None]:
        return [sample.answer(self.problem) for sample in self.samples]

    @property
    def cost(self) -> Cost:
        return sum((sample.cost for sample in self.samples), self.prompt_cost)

    def first(self, size: int) -> "Group":
        return self._replace(samples=self.samples[:size])

    def chunks(self, size: int) -> list["Group"]:
        """As many disjoint groups of `size` samples as there are."""
        starts = range(0, len(self.samples) - size + 1, size)
        return [self._replace(samples=self.samples[start : start + size]) for start in starts]

    def merge(self, other: "Group") -> "Group":
        """Both groups' samples, at the cost of both."""
        return Group(self.problem, self.samples + other.samples, self.prompt_cost + other.prompt_cost)


class MethodResult(NamedTuple):
    """A method's answer to one problem."""

    text: str | None
    """The chosen completion; None if no sample states an answer."""
    cost: Cost
    dropped: int = 0
    """Samples without a score: the scorer raised an error or returned no finite number."""


@dataclass(frozen=True, eq=False)
class InferenceModel:
    """A model with its tokenizer and its way of sampling. `dataclasses.replace` makes variants."""

    decoder: Decoder
    params: Params
    tokenizer: Tokenizer
    configs: tuple[ModelConfig, ...]
    """Of every model that runs for a token, the target first."""
    sampling: Sampling
    max_tokens: int
    """Per completion."""
    problem_to_messages: Callable[[Problem], Messages | str]
    rows: int = 256
    """Completions sampled side by side."""
    guide_tokenizer: Tokenizer | None = None
    """Of guide and base, if their vocabulary differs from the target's."""

    def encode(self, messages: Messages | str) -> Prompt:
        """Tokens of a prompt in each vocabulary, by its own chat template."""
        guide = encode_prompt(self.guide_tokenizer, messages) if self.guide_tokenizer else None
        return Prompt(encode_prompt(self.tokenizer, messages), guide)

    def encode_problems(self, problems: Sequence[Problem]) -> list[Prompt]:
        return [self.encode(self.problem_to_messages(problem)) for problem in problems]

    def extend(self, prompt: Prompt, tokens: Sequence[int]) -> Prompt:
        """The prompt followed by the first `tokens` of a completion."""
        if prompt.guide is None:
            return Prompt([*prompt.tokens, *tokens])
        ids, unknown = (np.asarray(x) for x in self.params.token_map)
        guide = ids[np.asarray(tokens, int)]
        return Prompt([*prompt.tokens, *tokens], [*prompt.guide, *np.where(guide < 0, unknown, guide).tolist()])

    def pad(self, prompts: Sequence[Prompt]) -> Prompts:
        guides = [prompt.guide for prompt in prompts if prompt.guide]
        return pad_prompts([prompt.tokens for prompt in prompts], guides or None)

    def sampler(self, stop_ids: tuple[int, ...] | None = None) -> Sampler:
        """Completions end with one of `stop_ids` (None: the tokenizer's)."""
        ids = self.tokenizer.stop_ids if stop_ids is None else stop_ids
        return Sampler(self.decoder, self.sampling, self.max_tokens, ids, self.rows)

    def problem_sampler(self) -> ProblemSampler:
        """For `evaluate`; takes `params` as an argument."""
        return make_problem_sampler(self.sampler(), self.tokenizer, self.problem_to_messages, self.guide_tokenizer)

    def check_prompt(self, prompt: Prompt, name: str, extra_tokens: int = 0) -> None:
        """Raises `InputError` if `prompt`, a completion and `extra_tokens` exceed some model's context."""
        for i, config in enumerate(self.configs):
            tokens = prompt.guide if i and prompt.guide is not None else prompt.tokens
            check_prompt(tokens, self.max_tokens + extra_tokens, config, name, "the guide's" if i else "the model's")

    def check_messages(self, conversations: Iterable[Messages | str], extra_tokens: int = 0) -> None:
        """`check_prompt` for each conversation."""
        for messages in conversations:
            self.check_prompt(self.encode(messages), f"{messages!r:.60}", extra_tokens)

    def complete(
        self,
        prompts: Sequence[Prompt],
        keys: Key[jax.Array, "P G"],
        *,
        row_limits: Sequence[int] | None = None,
        stop_ids: tuple[int, ...] | None = None,
    ) -> list[list[Sample]]:
        """Samples G completions of every prompt.

        Args:
            row_limits: maximal tokens of each prompt's completions; None: `max_tokens`.
            stop_ids: tokens that end a completion; None: the tokenizer's.
        """
        sampler, limits = self.sampler(stop_ids), np.asarray(row_limits or [self.max_tokens] * len(prompts), np.int32)
        completions: list[list[Sample]] = [[] for _ in prompts]
        for rows in bucket_by_length([prompt.tokens for prompt in prompts]):
            size = 1 << (len(rows) - 1).bit_length()  # powers of two: few batch sizes, each compiled once
            batch = np.array(rows + [rows[-1]] * (size - len(rows)))
            batch_limits = np.where(np.arange(size) < len(rows), limits[batch], 1)  # padding rows end at once
            begin = time.perf_counter()
            rollouts = jax.device_get(
                sampler(self.params, self.pad([prompts[i] for i in batch]), keys=keys[batch], row_limits=batch_limits)
            )
            seconds = (time.perf_counter() - begin) / (len(rows) * keys.shape[1])
            for row, (i, texts) in enumerate(zip(rows, decode_completions(rollouts, self.tokenizer), strict=False)):
                for g, text in enumerate(texts):
                    length = int(rollouts.lengths[row, g])
                    tokens, logps = rollouts.tokens[row, g, :length].tolist(), rollouts.logps[row, g, :length]
                    truncated, cost = bool(rollouts.truncated[row, g]), self.decode_cost(prompts[i], length, seconds)
                    completions[i].append(Sample(prompts[i], tokens, text, logps, truncated, cost))
        return completions

    def sample(self, problems: Sequence[Problem], num_samples: int, key: Key[jax.Array, ""]) -> list[Group]:
        """`num_samples` completions for each problem, by `problem_keys`."""
        if num_samples < 1 or not problems:
            raise InputError(f"{num_samples} samples of {len(problems)} problems: give at least one of each")
        return self.sample_with_keys(problems, problem_keys(problems, key, num_samples))

    def sample_with_keys(self, problems: Sequence[Problem], keys: Key[jax.Array, "P G"]) -> list[Group]:
        prompts = self.encode_problems(problems)
        completions = zip(problems, prompts, self.complete(prompts, keys), strict=True)
        return [Group(problem, samples, self.prefill_cost(prompt)) for problem, prompt, samples in completions]

    def prefill_cost(self, prompt: Prompt) -> Cost:
        return Cost(len(prompt.tokens), 0, self._flops(prefill_flops, prompt))

    def decode_cost(self, prompt: Prompt, tokens: int, seconds: float = 0.0) -> Cost:
        return Cost(0, tokens, self._flops(decode_flops, prompt, tokens), seconds)

    def _flops(self, formula: Callable[..., float], prompt: Prompt, *completion: int) -> float:
        lengths = [len(prompt.tokens), *[len(prompt.guide or prompt.tokens)] * (len(self.configs) - 1)]
        return sum(formula(cfg, length, *completion) for cfg, length in zip(self.configs, lengths, strict=True))


def problem_keys(problems: Sequence[Problem], key: Key[jax.Array, ""], num_samples: int) -> Key[jax.Array, "P G"]:
    """One key a sample, from the problem's own index: not from its position in `problems`."""
    return completion_keys(key, np.array([problem.index for problem in problems]), num_samples)


def load_inference_model(
    model: str,
    sampling: Sampling,
    max_tokens: int,
    problem_to_messages: Callable[[Problem], Messages | str],
    *,
    rows: int = 256,
    dtype: DTypeLike = np.float32,
) -> InferenceModel:
    """Loads one model; `dtype` is that of its computations."""
    config, params, tokenizer = load_model(model)
    decoder = TransformerDecoder(Transformer(config, dtype))
    return InferenceModel(decoder, fuse(params), tokenizer, (config,), sampling, max_tokens, problem_to_messages, rows)


def load_guided_model(
    target: str,
    guide: str,
    base: str,
    sampling: Sampling,
    max_tokens: int,
    problem_to_messages: Callable[[Problem], Messages | str],
    *,
    token_map: str = "",
    alpha: float = 1.0,
    warmup: int = 0,
    rows: int = 256,
    dtype: DTypeLike = np.float32,
) -> InferenceModel:
    """Loads a target whose logits are moved by those of `guide` less those of `base`: a `GuidedDecoder` with strength
    `alpha` after `warmup` tokens. `token_map` is the source of `make_token_map`. Warns if no completion can be longer
    than the warm-up."""
    if warmup >= max_tokens:
        warnings.warn(
            f"a warm-up of {warmup} tokens is longer than any of at most {max_tokens}: nothing is guided", stacklevel=2
        )
    if not (guide and base):
        raise InputError(f"guide {guide!r} and base {base!r}: give both, the reasoner and the model it was made from")
    models = one, two, three = [
        load_inference_model(name, sampling, max_tokens, problem_to_messages, rows=rows, dtype=dtype)
        for name in (target, guide, base)
    ]
    remedy = "take the model that the guide was made from"
    check_same_vocabulary(two.tokenizer, three.tokenizer, guide, base, remedy, descended=True)
    configs = tuple(config for model in models for config in model.configs)
    guide_vocab = min(config.vocab for config in configs[1:])
    mapped = make_token_map(one.tokenizer, two.tokenizer, target, guide, source=token_map, guide_vocab=guide_vocab)
    return replace(
        one,
        decoder=GuidedDecoder(one.decoder, two.decoder, three.decoder, alpha, warmup),
        params=GuidedParams(one.params, two.params, three.params, mapped),
        configs=configs,
        guide_tokenizer=two.tokenizer if mapped else None,
    )

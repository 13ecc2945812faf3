"""A model ready to be asked, alone or guided, and what its answers take."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

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
from jaxreason.types import Params
from jaxreason.weights import load_model


@dataclass(frozen=True)
class Cost:
    """What an answer took; costs add up."""

    prompt_tokens: int = 0
    """Read. A prompt counts once, however many completions it has."""
    tokens: int = 0
    """Written."""
    flops: float = 0.0
    """By the formula of `jaxreason.models.cost`, of every model that took part."""
    seconds: float = 0.0
    """Wall time; what runs side by side shares it evenly."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Prompt(NamedTuple):
    """What a model continues, and the same in the words of its guides if these have another vocabulary."""

    tokens: list[int]
    guides: list[int] | None = None


class Sample(NamedTuple):
    """One continuation of a prompt."""

    prompt: Prompt
    tokens: list[int]
    """The token that ended it included."""
    text: str
    """Without that token."""
    logps: Float[np.ndarray, "T"]
    """Of the tokens that the model chose, tempered; what was forced upon it has none."""
    truncated: bool
    cost: Cost
    """Of the writing."""

    def answer(self, problem: Problem) -> str | None:
        """The final answer it states, the last number where none is marked."""
        return numbers.extract_answer(self.text, problem, lenient=True)


class Group(NamedTuple):
    """Several answers to one problem."""

    problem: Problem
    samples: list[Sample]
    reading: Cost
    """Of the prompt."""

    @property
    def answers(self) -> list[str | None]:
        return [sample.answer(self.problem) for sample in self.samples]

    @property
    def cost(self) -> Cost:
        return sum((sample.cost for sample in self.samples), self.reading)

    def first(self, count: int) -> "Group":
        return self._replace(samples=self.samples[:count])

    def parts(self, count: int) -> list["Group"]:
        """As many groups of `count` samples as there are, none in two."""
        starts = range(0, len(self.samples) - count + 1, count)
        return [self._replace(samples=self.samples[start : start + count]) for start in starts]


class MethodResult(NamedTuple):
    """What a method answers to a problem."""

    text: str | None
    """The completion that speaks for all; None if none states an answer."""
    cost: Cost
    dropped: int = 0
    """Samples without a vote, because a scorer raised an error or gave no finite number."""


@dataclass(frozen=True, eq=False)
class InferenceModel:
    decoder: Decoder
    params: Params
    tokenizer: Tokenizer
    configs: tuple[ModelConfig, ...]
    """Of every model that runs for a token, the one that answers first."""
    sampling: Sampling
    max_tokens: int
    """Of a completion."""
    problem_to_messages: Callable[[Problem], Messages | str]
    """In which words a problem is put."""
    rows: int = 256
    """Completions side by side."""
    guides: Tokenizer | None = None
    """Of guide and base, if their vocabulary is not the target's."""
    _samplers: dict[tuple[int, ...], Sampler] = field(default_factory=dict, init=False, repr=False)

    def prompt(self, asked: Messages | str) -> Prompt:
        """Each vocabulary's own tokens, by its own chat template."""
        theirs = encode_prompt(self.guides, asked) if self.guides else None
        return Prompt(encode_prompt(self.tokenizer, asked), theirs)

    def extended(self, prompt: Prompt, tokens: Sequence[int]) -> Prompt:
        """The prompt with a begun completion."""
        if prompt.guides is None:
            return Prompt([*prompt.tokens, *tokens])
        ids, unknown = (np.asarray(x) for x in self.params.token_map)
        theirs = ids[np.asarray(tokens, int)]
        return Prompt([*prompt.tokens, *tokens], [*prompt.guides, *np.where(theirs < 0, unknown, theirs).tolist()])

    def problem_sampler(self) -> ProblemSampler:
        """The same for `evaluate` and updates, with `params` to be given."""
        return make_problem_sampler(self._sampler(None), self.tokenizer, self.problem_to_messages, self.guides)

    def check(self, asked: Iterable[Messages | str], more: int = 0) -> None:
        """Refuses prompts that leave no room in some model's context for a completion and `more` tokens."""
        for messages in asked:
            prompt = self.prompt(messages)
            for place, config in enumerate(self.configs):
                tokens = prompt.guides if place and prompt.guides is not None else prompt.tokens
                name = "the guide's" if place else "the model's"
                check_prompt(tokens, self.max_tokens + more, config, f"{messages!r:.60}", name)

    def complete(
        self,
        prompts: Sequence[Prompt],
        keys: Key[Array, "P G"],
        *,
        most: Sequence[int] | None = None,
        stop_ids: tuple[int, ...] | None = None,
    ) -> list[list[Sample]]:
        """G completions of every prompt, which end after `most` tokens (else `max_tokens`) or with one of `stop_ids`
        (else the tokenizer's)."""
        sampler, limits = self._sampler(stop_ids), np.asarray(most or [self.max_tokens] * len(prompts), np.int32)
        found: list[list[Sample]] = [[] for _ in prompts]
        for rows in bucket_by_length([prompt.tokens for prompt in prompts]):
            idle = [rows[-1]] * (_size(len(rows)) - len(rows))  # few sizes, each compiled once; these end at once
            places = np.array(rows + idle)
            alive = np.where(np.arange(len(places)) < len(rows), limits[places], 1)
            begin = time.perf_counter()
            rollouts = jax.device_get(
                sampler(self.params, self.padded([prompts[i] for i in places]), keys=keys[places], row_limits=alive)
            )
            seconds = (time.perf_counter() - begin) / (len(rows) * keys.shape[1])
            for row, (i, said) in enumerate(zip(rows, decode_completions(rollouts, self.tokenizer), strict=False)):
                for g, text in enumerate(said):
                    count = int(rollouts.lengths[row, g])
                    tokens, logps = rollouts.tokens[row, g, :count].tolist(), rollouts.logps[row, g, :count]
                    cost, cut = self.writing(prompts[i], count, seconds), bool(rollouts.truncated[row, g])
                    found[i].append(Sample(prompts[i], tokens, text, logps, cut, cost))
        return found

    def answer(self, problems: Sequence[Problem], count: int, key: Key[Array, ""]) -> list[Group]:
        """`count` answers to each problem; its index, not its place, chooses the keys."""
        if count < 1 or not problems:
            raise InputError(f"{count} samples of {len(problems)} problems: give at least one of each")
        return self.answer_with(
            problems, completion_keys(key, np.array([problem.index for problem in problems]), count)
        )

    def answer_with(self, problems: Sequence[Problem], keys: Key[Array, "P G"]) -> list[Group]:
        prompts = [self.prompt(self.problem_to_messages(problem)) for problem in problems]
        parts = zip(problems, prompts, self.complete(prompts, keys), strict=True)
        return [Group(problem, samples, self.reading(prompt)) for problem, prompt, samples in parts]

    def reading(self, prompt: Prompt) -> Cost:
        return Cost(len(prompt.tokens), 0, self._flops(prefill_flops, prompt))

    def writing(self, prompt: Prompt, tokens: int, seconds: float = 0.0) -> Cost:
        return Cost(0, tokens, self._flops(decode_flops, prompt, tokens), seconds)

    def _flops(self, formula: Callable[..., float], prompt: Prompt, *completion: int) -> float:
        lengths = [len(prompt.tokens), *[len(prompt.guides or prompt.tokens)] * (len(self.configs) - 1)]
        return sum(formula(cfg, length, *completion) for cfg, length in zip(self.configs, lengths, strict=True))

    def padded(self, prompts: Sequence[Prompt]):
        guide = [prompt.guides for prompt in prompts] if self.guides else None
        return pad_prompts([prompt.tokens for prompt in prompts], guide)

    def _sampler(self, stop_ids: tuple[int, ...] | None) -> Sampler:
        ends = self.tokenizer.stop_ids if stop_ids is None else stop_ids
        if ends not in self._samplers:
            how = {"max_tokens": self.max_tokens, "stop_ids": ends, "rows": self.rows}
            self._samplers[ends] = Sampler(self.decoder, self.sampling, **how)
        return self._samplers[ends]


def _size(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def load_inference_model(
    model: str,
    *,
    guide: str = "",
    base: str = "",
    mapped: str = "",
    alpha: float = 1.0,
    warmup: int = 100,
    dtype=np.float32,
    **how,
) -> InferenceModel:
    """The model of that name; with `guide` and `base`, guided by their logits (`GuidedDecoder`).

    `mapped` says how the target's tokens become the guides' where they do not share a vocabulary (`make_token_map`); `how`
    are further fields of `InferenceModel`.
    """
    config, params, tokenizer = load_model(model)
    decoder = TransformerDecoder(Transformer(config, dtype))
    if not (guide or base):
        return InferenceModel(decoder, fuse(params), tokenizer, (config,), **how)
    if not (guide and base):
        raise InputError(f"guide {guide!r} and base {base!r}: give both, the reasoner and the model it was made from")
    (one, reasoner, words), (two, plain, _) = both = load_model(guide), load_model(base)
    remedy = "take the model that the guide was made from"
    check_same_vocabulary(words, both[1].tokenizer, guide, base, remedy, descended=True)
    vocab = min(one.vocab, two.vocab)
    token_map = make_token_map(tokenizer, words, model, guide, source=mapped, guide_vocab=vocab)
    fused = GuidedDecoder(decoder, *(TransformerDecoder(Transformer(cfg, dtype)) for cfg in (one, two)), alpha, warmup)
    weights = GuidedParams(fuse(params), fuse(reasoner), fuse(plain), token_map)
    return InferenceModel(fused, weights, tokenizer, (config, one, two), guides=words if token_map else None, **how)

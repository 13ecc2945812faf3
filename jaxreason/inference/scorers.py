"""How good an answer looks from outside: what chooses among several."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np

from jaxreason.inference.model import Cost, Group, InferenceModel, Sample
from jaxreason.models import forward_flops, prefill_flops, score_completions
from jaxreason.rewards import Reward
from jaxreason.sampling import TransformerDecoder, pad_prompts
from jaxreason.sampling.rollout import bucket
from jaxreason.tasks import Problem

Scorer = Callable[[Problem, Sequence[Sample]], Sequence[float]]
"""One number a sample of one problem, the higher the better. A scorer that runs a model says what that takes in a
method `cost(problem, samples)`."""


def mean_logp(problem: Problem, samples: Sequence[Sample]) -> list[float]:
    """Mean log-probability of the tokens that the model chose: its confidence, whatever the length."""
    return [float(sample.logps.mean()) if sample.logps.size else -math.inf for sample in samples]


def rewarded(reward: Reward) -> Scorer:
    """By a verifier, a reward model or any other reward."""
    of_group = getattr(reward, "of_group", None)

    def scores(problem: Problem, samples: Sequence[Sample]) -> list[float]:
        texts = [sample.text for sample in samples]
        return list(of_group(texts, problem) if of_group else (reward(text, problem) for text in texts))

    return scores


class SelfCertainty:
    """How far the model's predictions along an answer are from knowing nothing: mean over its tokens of KL(U || p), U
    uniform (Kang et al., arXiv 2502.18581). Reads the answers once more."""

    def __init__(self, reasoner: InferenceModel):
        if not isinstance(reasoner.decoder, TransformerDecoder):
            raise TypeError("self-certainty is of one model; give a reasoner without guides")
        self.reasoner = reasoner
        self.score = jax.jit(partial(score_completions, model=reasoner.decoder.model))

    def __call__(self, problem: Problem, samples: Sequence[Sample]) -> list[float]:
        prompt = samples[0].prompt
        mask = np.arange(bucket(max(len(s.tokens) for s in samples))) < np.array([[len(s.tokens)] for s in samples])
        tokens = np.zeros(mask.shape, np.int32)
        tokens[mask] = [token for sample in samples for token in sample.tokens]
        prompts = pad_prompts([prompt.tokens])
        certainty = self.score(self.reasoner.params, prompts, tokens[None], mask[None]).certainty[0]
        return (np.asarray(certainty).sum(axis=-1) / mask.sum(axis=-1)).tolist()

    def cost(self, problem: Problem, samples: Sequence[Sample]) -> Cost:
        (config,), prompt = self.reasoner.configs, len(samples[0].prompt.tokens)
        lengths = [len(sample.tokens) for sample in samples]
        flops = sum(forward_flops(config, length, prompt + length / 2) for length in lengths)
        return Cost(prompt + sum(lengths), 0, flops + prefill_flops(config, prompt))


def scored(group: Group, scorer: Scorer) -> tuple[list[float], Cost, int]:
    """The scores, NaN where there is none; what they take; how many there are not."""
    try:
        scores = [float(score) for score in scorer(group.problem, group.samples)]
    except Exception:  # whatever a foreign function can do wrong: then each for itself, so that one spoils no other
        scores = [_alone(scorer, group.problem, sample) for sample in group.samples]
    if len(scores) != len(group.samples):
        raise ValueError(f"the scorer gave {len(scores)} scores to {len(group.samples)} samples; give each one")
    scores = [score if math.isfinite(score) else math.nan for score in scores]
    cost = scorer.cost(group.problem, group.samples) if hasattr(scorer, "cost") else Cost()
    return scores, cost, sum(map(math.isnan, scores))


def _alone(scorer: Scorer, problem: Problem, sample: Sample) -> float:
    try:
        (score,) = scorer(problem, [sample])
        return float(score)
    except Exception:
        return math.nan

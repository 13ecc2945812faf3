"""Scores of completions, by which a method chooses among them."""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxreason.inference.model import Cost, Group, InferenceModel, Sample
from jaxreason.models import forward_flops, prefill_flops, score_completions
from jaxreason.rewards import Reward
from jaxreason.sampling import TransformerDecoder, pad_prompts
from jaxreason.sampling.rollout import bucket
from jaxreason.tasks import Problem

Scorer = Callable[[Problem, Sequence[Sample]], Sequence[float]]
"""One number for each sample of one problem, the higher the better. A scorer that runs a model has a method
`cost(problem, samples) -> Cost`."""

_score_completions = jax.jit(score_completions, static_argnames="model")


def mean_logp(problem: Problem, samples: Sequence[Sample]) -> list[float]:
    """Mean log-probability of the sampled tokens: the model's confidence, independent of length."""
    return [float(sample.logps.mean()) if sample.logps.size else -math.inf for sample in samples]


def reward_scorer(reward: Reward) -> Scorer:
    """Scores by a verifier, a reward model or any other reward."""
    of_group = getattr(reward, "of_group", None)

    def scores(problem: Problem, samples: Sequence[Sample]) -> list[float]:
        texts = [sample.text for sample in samples]
        return list(of_group(texts, problem) if of_group else (reward(text, problem) for text in texts))

    return scores


class SelfCertainty:
    """Self-certainty: mean over a completion's tokens of KL(U || p), U uniform, p the model's prediction (Kang et al.,
    arXiv 2502.18581). Runs the model over the completions once more."""

    def __init__(self, model: InferenceModel):
        if not isinstance(model.decoder, TransformerDecoder):
            raise TypeError("self-certainty is of one model; give a model without guide and base")
        self.model, self.transformer = model, model.decoder.model

    def __call__(self, problem: Problem, samples: Sequence[Sample]) -> list[float]:
        prompts, lengths = pad_prompts([samples[0].prompt.tokens]), np.array([[len(s.tokens)] for s in samples])
        mask = np.arange(bucket(int(lengths.max()))) < lengths
        tokens = np.zeros(mask.shape, np.int32)
        tokens[mask] = [token for sample in samples for token in sample.tokens]
        scores = _score_completions(self.model.params, prompts, tokens[None], mask[None], model=self.transformer)
        return (np.asarray(scores.certainty[0]).sum(axis=-1) / mask.sum(axis=-1)).tolist()

    def cost(self, problem: Problem, samples: Sequence[Sample]) -> Cost:
        (config,), prompt = self.model.configs, len(samples[0].prompt.tokens)
        lengths = [len(sample.tokens) for sample in samples]
        flops = sum(forward_flops(config, length, prompt + length / 2) for length in lengths)
        return Cost(prompt + sum(lengths), 0, flops + prefill_flops(config, prompt))


def score_group(group: Group, scorer: Scorer) -> tuple[list[float], Cost, int]:
    """Returns the scores (NaN: none), the scorer's cost, and the number of samples without a score."""
    try:
        scores = [float(score) for score in scorer(group.problem, group.samples)]
    except Exception:  # a user's function may raise anything; then each sample alone, so that one spoils no other
        scores = [_score_alone(scorer, group.problem, sample) for sample in group.samples]
    if len(scores) != len(group.samples):
        raise ValueError(f"the scorer returned {len(scores)} scores for {len(group.samples)} samples; return one each")
    scores = [score if math.isfinite(score) else math.nan for score in scores]
    scorer_cost = getattr(scorer, "cost", None)
    cost = scorer_cost(group.problem, group.samples) if scorer_cost else Cost()
    return scores, cost, sum(map(math.isnan, scores))


def _score_alone(scorer: Scorer, problem: Problem, sample: Sample) -> float:
    try:
        (score,) = scorer(problem, [sample])
        return float(score)
    except Exception:
        return math.nan

"""Rollouts: decoders, draws, the compiled sampler and its host side."""

from jaxreason.sampling.continuous_batching import Sampler
from jaxreason.sampling.decoder import Decoder, State, TransformerDecoder, fresh
from jaxreason.sampling.draw import GREEDY, Sampling, draw
from jaxreason.sampling.generate import generate, row_keys
from jaxreason.sampling.logit_arithmetic import Guidance, Guided, GuidedDecoder, Translation, guidance
from jaxreason.sampling.rollout import Policy, check_prompts, pad_guided, pad_prompts, sample_all, sampler, texts

__all__ = [
    "GREEDY",
    "Decoder",
    "Guidance",
    "Guided",
    "GuidedDecoder",
    "Policy",
    "Sampler",
    "Sampling",
    "State",
    "TransformerDecoder",
    "Translation",
    "check_prompts",
    "draw",
    "fresh",
    "generate",
    "guidance",
    "pad_guided",
    "pad_prompts",
    "row_keys",
    "sample_all",
    "sampler",
    "texts",
]

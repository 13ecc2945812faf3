"""Rollouts: decoders, draws, the compiled sampler and its host side."""

from jaxreason.sampling.continuous_batching import Sampler
from jaxreason.sampling.decoder import Decoder, DecodeState, TransformerDecoder, init_decode_state
from jaxreason.sampling.draw import GREEDY, Sampling, draw
from jaxreason.sampling.generate import completion_keys, generate
from jaxreason.sampling.logit_arithmetic import GuidanceTrace, GuidedDecoder, GuidedParams, Translation, trace_guidance
from jaxreason.sampling.rollout import (
    ProblemSampler,
    check_prompts,
    decode_completions,
    make_problem_sampler,
    pad_guided,
    pad_prompts,
    sample_all,
    transformer_sampler,
)

__all__ = [
    "DecodeState",
    "Decoder",
    "GREEDY",
    "GuidanceTrace",
    "GuidedDecoder",
    "GuidedParams",
    "ProblemSampler",
    "Sampler",
    "Sampling",
    "TransformerDecoder",
    "Translation",
    "check_prompts",
    "completion_keys",
    "decode_completions",
    "draw",
    "generate",
    "init_decode_state",
    "make_problem_sampler",
    "pad_guided",
    "pad_prompts",
    "sample_all",
    "trace_guidance",
    "transformer_sampler",
]

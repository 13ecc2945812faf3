"""Rollouts: the decoder protocol, sampling from logits, continuous batching, logit arithmetic."""

from jaxreason.sampling.continuous_batching import Sampler
from jaxreason.sampling.decoder import Decoder, DecodeState, TransformerDecoder, init_decode_state
from jaxreason.sampling.draw import GREEDY, Sampling, draw
from jaxreason.sampling.generate import completion_keys, generate
from jaxreason.sampling.logit_arithmetic import GuidanceTrace, GuidedDecoder, GuidedParams, trace_guidance
from jaxreason.sampling.rollout import (
    ProblemSampler,
    SampledBatch,
    check_prompts,
    decode_completions,
    make_problem_sampler,
    pad_prompts,
    sample_problems,
    transformer_sampler,
)

__all__ = [
    "GREEDY", "DecodeState", "Decoder", "GuidanceTrace", "GuidedDecoder", "GuidedParams", "ProblemSampler",
    "SampledBatch", "Sampler", "Sampling", "TransformerDecoder", "check_prompts", "completion_keys",
    "decode_completions", "draw", "generate", "init_decode_state", "make_problem_sampler", "pad_prompts",
    "sample_problems", "trace_guidance", "transformer_sampler",
]  # fmt: skip

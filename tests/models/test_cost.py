"""FLOPs against XLA's count."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jaxreason.models.cost import decode_flops, forward_flops, prefill_flops, training_flops
from jaxreason.models.scoring import score_packed
from jaxreason.models.transformer import Transformer, init
from jaxreason.sampling.decoder import TransformerDecoder
from jaxreason.types import PackedBatch, Prompts
from tests.models.families import TINY

WIDE = {"hidden_size": 192, "head_dim": 48, "intermediate_size": 320, "vocab": 768}  # matrix products dominate


@pytest.mark.parametrize("family", TINY)
def test_training_flops(family):
    cfg, rows, length = replace(TINY[family], **WIDE), 4, 32
    text = jnp.ones((rows, length), jnp.int32)
    packed = PackedBatch(text, text, jnp.broadcast_to(jnp.arange(1, length + 1), text.shape))  # every token is scored
    params = jax.eval_shape(partial(init, cfg=cfg), jax.random.key(0))

    def loss(params):
        return score_packed(params, packed, model=Transformer(cfg)).logps.sum()

    logits = 2 * rows * length * cfg.vocab * cfg.hidden_size  # some versions of XLA recompute them in the backward pass
    for function, formula, recomputed in ((loss, forward_flops, 0), (jax.grad(loss), training_flops, logits)):
        expected = formula(cfg, rows * length, keys=length)
        assert 0.95 * expected < counted(function, params) < 1.05 * (expected + recomputed)


@pytest.mark.parametrize("family", TINY)
def test_sampling_flops(family):
    cfg, prompt, completion = replace(TINY[family], **WIDE), 24, 9
    params = jax.eval_shape(partial(init, cfg=cfg), jax.random.key(0))
    decoder, prompts = TransformerDecoder(Transformer(cfg)), Prompts(*jnp.ones((2, 1, prompt), jnp.int32))
    prompts = prompts._replace(mask=prompts.mask > 0)
    prefill = partial(decoder.prefill, group_size=1, cache_size=completion)
    _, state = jax.eval_shape(prefill, params, prompts)
    steps = (completion - 1) * counted(decoder.decode, params, jnp.ones((1, 1), jnp.int32), state)
    assert counted(prefill, params, prompts) == pytest.approx(prefill_flops(cfg, prompt), rel=0.05)
    assert steps == pytest.approx(decode_flops(cfg, prompt, completion), rel=0.05)


def counted(function, *args) -> float:
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

"""What is learned of what was sampled, by hand; arithmetic against XLA's own count."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jaxreason.data import deduplicate, filter_correct, make_pairs, source
from jaxreason.models.cost import decode_flops, forward_flops, prefill_flops, training_flops
from jaxreason.models.scoring import score_packed
from jaxreason.models.transformer import Transformer, init
from jaxreason.sampling.decoder import TransformerDecoder
from jaxreason.types import PackedBatch, Prompts
from tests.models.families import TINY


def sample(index, completion, strict, truncated=False, model="a") -> dict:
    return {"index": index, "completion": completion, "strict": strict, "truncated": truncated, "model": model}


SAMPLES = [
    sample(0, "1+1 = 2", 1.0),
    sample(0, "1+1  =  2\n", 1.0),  # the same but for blanks
    sample(0, "2", 1.0),
    sample(0, "two, of course", 1.0),
    sample(0, "3", 0.0),
    sample(1, "so 7 and", 1.0, truncated=True),
    sample(1, "8", 0.0),
    sample(0, " \n", 0.0, model="b"),
    sample(0, "2", 1.0, model="b"),
    sample(0, "4", 0.0, model="b"),
]


def test_right_texts_once_and_a_few_for_each_problem():
    assert [row["completion"] for row in filter_correct(SAMPLES, most=2)] == ["1+1 = 2", "2"]
    assert [row["completion"] for row in deduplicate(SAMPLES, most=9)] == [
        "1+1 = 2",
        "2",
        "two, of course",
        "3",
        "4",
        "8",
    ]


def test_pairs_by_who_wrote_each_side():
    def texts(kinds, most):
        return [(better["completion"], worse["completion"]) for better, worse in make_pairs(SAMPLES, kinds, most=most)]

    assert texts([("a right", "a wrong")], 1) == [("1+1 = 2", "3")]
    assert texts([("a right", "b wrong"), ("b wrong", "a wrong")], 2) == [("1+1 = 2", "4"), ("4", "3")]
    assert texts([("b right", "b wrong")], 1) == [("2", "4")]  # though another model wrote the same text
    assert texts([("a right", "c wrong")], 1) == []
    assert source(SAMPLES[-1]) == "b wrong"


WIDE = {
    "hidden_size": 192,
    "head_dim": 48,
    "intermediate_size": 320,
    "vocab": 768,
}  # where products are nearly all of it


@pytest.mark.parametrize("family", TINY)
def test_arithmetic_of_texts_is_what_xla_counts(family):
    cfg, rows, length = replace(TINY[family], **WIDE), 4, 32
    text = jnp.ones((rows, length), jnp.int32)
    packed = PackedBatch(text, text, jnp.broadcast_to(jnp.arange(1, length + 1), text.shape))  # all of them scored
    params = jax.eval_shape(partial(init, cfg=cfg), jax.random.key(0))

    def loss(params):
        return score_packed(params, packed, model=Transformer(cfg)).logps.sum()

    again = (
        2 * rows * length * cfg.vocab * cfg.hidden_size
    )  # logits that some versions of XLA compute again, going backward
    for function, expected, more in ((loss, forward_flops, 0), (jax.grad(loss), training_flops, again)):
        least = expected(cfg, rows * length, keys=length)
        assert 0.95 * least < counted(function, params) < 1.05 * (least + more)


@pytest.mark.parametrize("family", TINY)
def test_arithmetic_of_sampling_is_what_xla_counts(family):
    cfg, read, written = replace(TINY[family], **WIDE), 24, 9
    params = jax.eval_shape(partial(init, cfg=cfg), jax.random.key(0))
    decoder, prompts = TransformerDecoder(Transformer(cfg)), Prompts(*jnp.ones((2, 1, read), jnp.int32))
    prompts = prompts._replace(mask=prompts.mask > 0)
    prefill = partial(decoder.prefill, group_size=1, slots=written)
    _, state = jax.eval_shape(prefill, params, prompts)
    steps = (written - 1) * counted(decoder.decode, params, jnp.ones((1, 1), jnp.int32), state)
    assert counted(prefill, params, prompts) == pytest.approx(prefill_flops(cfg, read), rel=0.05)
    assert steps == pytest.approx(decode_flops(cfg, read, written), rel=0.05)


def counted(function, *given) -> float:
    return jax.jit(function).lower(*given).compile().cost_analysis()["flops"]

"""What is learned of what was sampled, by hand; arithmetic against XLA's own count."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jaxreason.evaluation import accepted, forward_flops, paired, source, training_flops, unfiltered
from jaxreason.models.scoring import score_packed
from jaxreason.models.transformer import Transformer, init
from jaxreason.types import Packed
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
    sample(0, "2", 1.0, model="b"),
    sample(0, "4", 0.0, model="b"),
]


def test_right_texts_once_and_a_few_for_each_problem():
    assert [row["completion"] for row in accepted(SAMPLES, most=2)] == ["1+1 = 2", "2"]
    assert [row["completion"] for row in unfiltered(SAMPLES, most=9)] == [
        "1+1 = 2",
        "2",
        "two, of course",
        "3",
        "4",
        "8",
    ]


def test_pairs_by_who_wrote_each_side():
    def texts(kinds, most):
        return [(better["completion"], worse["completion"]) for better, worse in paired(SAMPLES, kinds, most=most)]

    assert texts([("a right", "a wrong")], 1) == [("1+1 = 2", "3")]
    assert texts([("a right", "b wrong"), ("b wrong", "a wrong")], 2) == [("1+1 = 2", "4"), ("4", "3")]
    assert texts([("b right", "b wrong")], 1) == [("2", "4")]  # though another model wrote the same text
    assert texts([("a right", "c wrong")], 1) == []
    assert source(SAMPLES[-1]) == "b wrong"


@pytest.mark.parametrize("family", TINY)
def test_arithmetic_is_what_xla_counts(family):
    wide = {"width": 192, "head_width": 48, "mlp_width": 320, "vocab": 768}  # where products are nearly all of it
    cfg, rows, length = replace(TINY[family], **wide), 4, 32
    text = jnp.ones((rows, length), jnp.int32)
    packed = Packed(text, text, jnp.broadcast_to(jnp.arange(1, length + 1), text.shape))  # all of them scored
    params = jax.eval_shape(partial(init, cfg=cfg), jax.random.key(0))

    def loss(params):
        return score_packed(params, packed, model=Transformer(cfg)).logps.sum()

    again = 2 * rows * length * cfg.vocab * cfg.width  # logits that some versions of XLA compute again, going backward
    for function, expected, more in ((loss, forward_flops, 0), (jax.grad(loss), training_flops, again)):
        counted = jax.jit(function).lower(params).compile().cost_analysis()["flops"]
        least = expected(cfg, rows * length, keys=length)
        assert 0.95 * least < counted < 1.05 * (least + more)

"""Fifty steps with prompts and completions of many lengths trace every size once or twice, and meet few sizes."""

from collections import Counter
from dataclasses import replace

import jax
import numpy as np

from jaxreason.models import scoring
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.algorithms import GRPO
from jaxreason.sampling import ProblemSampler, Sampler, Sampling, TransformerDecoder, decoder
from jaxreason.tasks import Problem
from jaxreason.training import MicrobatchedUpdate, grpo_steps, init_state, make_optimizer
from jaxreason.weights import load_model
from tests.models.families import TINY, tiny_params

_, _, TOKENIZER = load_model("tiny")
CFG = replace(TINY["llama"], layers=1, vocab=TOKENIZER.vocab_size)


def test_traces_in_fifty_steps(monkeypatch):
    traces, lengths = {"update": Counter(), "sampler": Counter()}, set()

    def count(module, name, kind):
        function = getattr(module, name)

        def counted(*arguments, **settings):
            shapes = [x.shape for x in jax.tree.leaves(arguments[1:])]
            traces[kind][name, str(shapes)] += 1
            return function(*arguments, **settings)

        monkeypatch.setattr(module, name, counted)

    count(scoring, "run_completions", "update")
    count(decoder, "run_prompts", "sampler")
    count(decoder, "run_step", "sampler")

    rng, optimizer = np.random.default_rng(0), make_optimizer(1e-3)
    problems = [Problem(question="", answer="", solution="", index=i) for i in range(40)]
    prompts = [rng.integers(3, CFG.vocab, n).tolist() for n in rng.integers(20, 90, len(problems))]
    sampler = Sampler(
        TransformerDecoder(Transformer(CFG)), Sampling(), max_tokens=64, stop_ids=tuple(range(60)), rows=8
    )
    sampler = ProblemSampler(lambda problem: prompts[problem.index], sampler, TOKENIZER)
    steps = grpo_steps(
        init_state(tiny_params(CFG, seed=0), optimizer, seed=0),
        problems,
        steps=50,
        prompts_per_step=4,
        group_size=2,
        sampler=sampler,
        reward=lambda text, problem: len(text) % 2,
        graders={},
        algorithm=GRPO,
        update=MicrobatchedUpdate(model=Transformer(CFG), algorithm=GRPO, optimizer=optimizer),
    )
    for result in steps:
        lengths |= {sample["tokens"] for sample in result.samples}
    assert len(lengths) > 20
    for kind, most in (("update", 8), ("sampler", 12)):
        assert max(traces[kind].values()) <= 2
        assert len(traces[kind]) <= most, traces[kind]

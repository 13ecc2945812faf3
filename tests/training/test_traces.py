"""What is compiled: few sizes in fifty steps, each once or twice, and nothing again for a second equal run."""

from collections import Counter
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from jaxreason.evaluation import evaluate
from jaxreason.models import scoring
from jaxreason.models.transformer import Transformer
from jaxreason.objectives import resolve_algorithm
from jaxreason.sampling import ProblemSampler, Sampler, Sampling, TransformerDecoder, decoder
from jaxreason.tasks import Problem
from jaxreason.training import MicrobatchedUpdate, collect_groups, init_state, make_batch, make_optimizer, sample_rows
from jaxreason.weights import load_model
from tests.models.families import TINY, tiny_params

_, _, TOKENIZER = load_model("tiny")
CFG = replace(TINY["llama"], layers=1, vocab=TOKENIZER.vocab_size)
RNG = np.random.default_rng(0)
PROBLEMS = [Problem(question="", answer="", solution="", index=i) for i in range(40)]
PROMPTS = [RNG.integers(3, CFG.vocab, n).tolist() for n in RNG.integers(20, 90, len(PROBLEMS))]


@pytest.fixture
def traces(monkeypatch) -> dict[str, Counter]:
    """How often the model's passes are traced, by the shapes they are traced for."""
    counts = {"update": Counter(), "sampler": Counter()}

    def count(module, name, kind):
        function = getattr(module, name)

        def counted(*arguments, **settings):
            shapes = [x.shape for x in jax.tree.leaves(arguments[1:])]
            counts[kind][name, str(shapes)] += 1
            return function(*arguments, **settings)

        monkeypatch.setattr(module, name, counted)

    count(scoring, "run_completions", "update")
    count(decoder, "run_prompts", "sampler")
    count(decoder, "run_step", "sampler")
    return counts


def make_sampler(max_tokens: int) -> ProblemSampler:
    stops = tuple(range(60))
    sample = Sampler(TransformerDecoder(Transformer(CFG)), Sampling(), max_tokens=max_tokens, stop_ids=stops, rows=8)
    return ProblemSampler(lambda problem: PROMPTS[problem.index], sample, TOKENIZER)


def train(steps: int, *, max_tokens: int, seed: int) -> set[int]:
    """A run of its own, with everything made anew; returns the lengths of its completions."""
    optimizer, algorithm, lengths = make_optimizer(1e-3), resolve_algorithm("grpo", overlong_buffer=8), set()
    update = MicrobatchedUpdate(model=Transformer(CFG), algorithm=algorithm, optimizer=optimizer)
    state = init_state(tiny_params(CFG, seed=0), optimizer, seed=seed)
    collect = partial(collect_groups, prompts_per_step=4, group_size=2)
    for _ in range(steps):
        groups = collect(state, PROBLEMS, make_sampler(max_tokens), lambda text, problem: float(len(text) % 2))
        state, _ = update(state, make_batch(groups.learned.rollouts, groups.learned.rewards, algorithm))
        lengths |= {row["tokens"] for row in sample_rows(groups)}
    return lengths


@pytest.mark.slow
def test_traces_in_fifty_steps(traces):
    assert len(train(50, max_tokens=64, seed=0)) > 20
    for kind, limit in (("update", 8), ("sampler", 12)):
        assert max(traces[kind].values()) <= 2
        assert len(traces[kind]) <= limit, traces[kind]


@pytest.mark.slow
def test_a_second_run_and_a_second_evaluation_compile_nothing_again(traces):
    def run() -> None:
        train(6, max_tokens=40, seed=1)
        params = tiny_params(CFG, seed=1)
        evaluate(params, PROBLEMS[:9], sampler=make_sampler(40), group_size=2, key=jax.random.key(0))

    run()
    before = {kind: counts.total() for kind, counts in traces.items()}
    assert min(before.values()) > 0
    run()
    assert {kind: counts.total() for kind, counts in traces.items()} == before

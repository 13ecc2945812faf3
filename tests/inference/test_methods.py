"""Inference methods on the bundled reasoner: what they choose, their costs, and where they must change nothing."""

import math
from dataclasses import replace
from functools import lru_cache

import jax
import numpy as np
import pytest

from jaxreason.errors import InputError
from jaxreason.inference import (
    Cost,
    Group,
    InferenceModel,
    Sample,
    SelfCertainty,
    best_of_n,
    cascade,
    detect_thinking_format,
    early_stopping_vote,
    force_budget,
    load_guided_model,
    load_inference_model,
    mean_logp,
    refine,
    reward_scorer,
    self_consistency,
    step_search,
    weighted_consistency,
)
from jaxreason.inference.model import Prompt
from jaxreason.models.cost import decode_flops, prefill_flops
from jaxreason.rewards import numbers
from jaxreason.sampling import GREEDY, Sampling
from jaxreason.tasks import Problem, load_task, messages

KEY = jax.random.key(0)


@lru_cache
def model(sampling: Sampling = GREEDY) -> InferenceModel:
    task = load_task("grade-school")
    return load_inference_model("tiny", sampling, 48, lambda problem: messages(task, problem))


@lru_cache
def problems() -> list[Problem]:
    return load_task("grade-school").train[:6]


@lru_cache
def groups() -> list[Group]:
    return model(Sampling()).sample(problems(), 8, KEY)


def sample(text: str, logps=(-1.0,)) -> Sample:
    return Sample(Prompt([1]), [2] * len(logps), text, np.array(logps, np.float32), False, Cost(0, len(logps), 7.0))


PROBLEM = Problem("How many?", "4", "", 0)
GROUP = Group(
    PROBLEM, [sample("#### 3", [-0.1, -0.2]), sample("#### 4"), sample("#### 4.0"), sample("no")], Cost(5, 0, 9.0)
)


def test_the_majority_and_the_best_by_hand():
    assert self_consistency(GROUP) == ("#### 4", Cost(5, 5, 37.0), 0)
    assert self_consistency(GROUP.first(1)) == ("#### 3", Cost(5, 2, 16.0), 0)
    assert best_of_n(GROUP, mean_logp).text == "#### 3"
    assert best_of_n(GROUP, reward_scorer(numbers.strict)).text == "#### 4"
    ranked = {"#### 3": 2.0, "#### 4": 0.5, "#### 4.0": 1.0, "no": 3.0}

    def scorer(problem, samples):
        return [ranked[one.text] for one in samples]

    assert best_of_n(GROUP, scorer).text == "no"
    assert weighted_consistency(GROUP, scorer).text == "#### 3"  # 2 against 0.5 + 1
    assert weighted_consistency(GROUP, scorer, power=1.0).text == "#### 3"  # rank 2 of 4 against ranks 3 and 4: 3 = 3
    assert weighted_consistency(GROUP, scorer, power=0.5).text == "#### 4"
    with pytest.raises(InputError, match="elects what is rare"):
        weighted_consistency(GROUP, mean_logp)


def test_a_sample_whose_score_fails_is_dropped_and_counted():
    def scorer(problem, samples):
        scores = {"#### 3": math.nan, "#### 4": 1.0, "#### 4.0": math.inf}
        return [scores[one.text] for one in samples]  # and an error for the last

    assert best_of_n(GROUP, scorer)[::2] == ("#### 4", 3)
    assert weighted_consistency(GROUP, scorer)[::2] == ("#### 4", 3)
    assert best_of_n(GROUP.first(1), scorer)[::2] == (None, 1)
    with pytest.raises(ValueError, match="1 scores for 4 samples"):
        best_of_n(GROUP, lambda problem, samples: [1.0])


@pytest.mark.slow
def test_costs_count_prefill_and_decoding():
    group, (config,) = groups()[0], model().configs
    prompt, lengths = len(group.samples[0].prompt.tokens), [len(one.tokens) for one in group.samples]
    assert group.cost.prompt_tokens == prompt and group.cost.tokens == sum(lengths)
    flops = prefill_flops(config, prompt) + sum(decode_flops(config, prompt, length) for length in lengths)
    assert group.cost.flops == pytest.approx(flops) and group.cost.seconds > 0
    best = best_of_n(group, SelfCertainty(model(Sampling())))
    assert best.cost.prompt_tokens == 2 * prompt + sum(lengths) and best.cost.flops > 1.5 * flops


def test_a_variant_of_a_model_keeps_its_compiled_sampler():
    assert replace(model(), problem_to_messages=str).sampler() == model().sampler()
    assert replace(model(), max_tokens=8).sampler() != model().sampler()


@pytest.mark.slow
def test_an_early_stop_gives_the_full_votes_answer_for_fewer_tokens():
    stopped = early_stopping_vote(model(Sampling()), problems(), 8, KEY, chunk_size=2)
    for part, whole in zip(stopped, groups(), strict=True):
        assert [one.text for one in part.samples] == [one.text for one in whole.samples[: len(part.samples)]]
        assert self_consistency(part).text == self_consistency(whole).text
    assert sum(x.cost.tokens for x in stopped) < sum(x.cost.tokens for x in groups())
    assert len({len(part.samples) for part in stopped}) > 1


@pytest.mark.slow
def test_thinking_within_its_budget():
    plain = [group.samples[0].text for group in model().sample(problems(), 1, KEY)]
    free = force_budget(model(), problems(), 1, KEY, budget=40, answer_tokens=8)
    assert [group.samples[0].text for group in free] == plain  # no completion was cut
    for budget in (0, 7):
        for group, text in zip(force_budget(model(), problems(), 2, KEY, budget=budget), plain, strict=True):
            for one in group.samples:
                thought, _, answer = one.text.partition("####")
                assert len(model().tokenizer.encode(thought.rstrip())) <= budget + 1 and len(answer) < 40
                assert text.startswith(thought.removesuffix("\n")) and one.logps.size <= budget + 16
    again = force_budget(model(), problems(), 1, KEY, budget=40, waits=1, answer_tokens=8)
    for group, text in zip(again, plain, strict=True):
        (sample,) = group.samples
        assert sample.text.startswith(text.partition("####")[0] + "Wait")
        forced = len(sample.tokens) - sample.logps.size
        style, encode = detect_thinking_format(model().tokenizer), model().tokenizer.encode_continuation
        assert forced in {len(encode(style.wait)), len(encode(style.wait)) + len(encode(style.close))}


def test_a_search_with_one_continuation_is_plain_sampling():
    plain = [group.samples[0].text for group in model().sample(problems(), 1, KEY)]
    for step_tokens in (0, 5):
        results = step_search(
            model(), problems(), KEY, scorer=mean_logp, beam_width=1, num_expansions=1, step_tokens=step_tokens
        )
        assert [one.text for one in results] == plain


@pytest.mark.slow
def test_a_search_raises_its_scorers_score():
    def checks(problem, samples):
        return [one.text.count("check") for one in samples]

    results = step_search(model(Sampling()), problems(), KEY, scorer=checks, beam_width=2, num_expansions=4)
    sampled = np.mean(["check" in one.text for group in groups() for one in group.samples])
    assert np.mean(["check" in one.text for one in results]) > 2 * sampled


def test_a_revision_replaces_the_draft_if_its_score_is_higher():
    drafts = [one.text for one in refine(model(), problems(), KEY, rounds=0)]
    assert drafts == [group.samples[0].text for group in model().sample(problems(), 1, KEY)]
    unchanged = refine(model(), problems(), KEY, scorer=lambda problem, samples: [1.0 for _ in samples])
    assert [one.text for one in unchanged] == drafts
    revised = refine(model(), problems(), KEY)
    assert [one.text for one in revised] != drafts
    unscored = refine(model(), problems(), KEY, scorer=lambda problem, samples: [math.nan for _ in samples])
    assert [one.dropped for one in unscored] == [2] * len(drafts)


def test_a_cascade_samples_more_only_for_unsure_problems():
    resampled = []

    def expensive(problems):
        resampled.extend(problems)
        return [group for group in groups() if group.problem in problems]

    results = cascade(problems(), lambda problems: [group.first(2) for group in groups()], expensive)
    unsure = [g.problem for g in groups() if len({*map(numbers.parse_number, filter(None, g.answers[:2]))}) != 1]
    assert resampled == unsure and 0 < len(resampled) < len(results)
    for group, result in zip(groups(), results, strict=True):
        assert result.cost.tokens >= group.first(2).cost.tokens


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: m.sample(p, 0, KEY), "0 samples of 6 problems"),
        (lambda m, p: m.sample([], 1, KEY), "1 samples of 0 problems"),
        (lambda m, p: early_stopping_vote(m, p, 4, KEY, chunk_size=5), "chunks of 5 samples out of 4"),
        (lambda m, p: force_budget(m, p, 1, KEY, budget=40, answer_tokens=9), "more than the 48 tokens"),
        (lambda m, p: force_budget(m, p, 1, KEY, budget=-1), "budget -1"),
        (lambda m, p: step_search(m, p, KEY, scorer=mean_logp, num_expansions=0), "expansions 0"),
        (lambda m, p: refine(m, p, KEY, rounds=-1), "-1 rounds"),
        (lambda m, p: refine(replace(m, max_tokens=300), p, KEY), "more than the model's context of 512"),
        (lambda m, p: load_guided_model("tiny", "tiny", "", GREEDY, 48, str), "base '': give both"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sampled(call, message):
    with pytest.raises(InputError, match=message):
        call(model(), problems())

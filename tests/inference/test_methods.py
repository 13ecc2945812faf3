"""Methods on the shipped reasoner: what they choose, what they spend, and where they must change nothing."""

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
    early_stopping_vote,
    force_budget,
    load_inference_model,
    mean_logp,
    refine,
    rewarded,
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
def reasoner(sampling: Sampling = GREEDY) -> InferenceModel:
    task = load_task("grade-school")
    how = {"sampling": sampling, "max_tokens": 48, "ask": lambda problem: messages(task, problem)}
    return load_inference_model("tiny", **how)


@lru_cache
def problems() -> list[Problem]:
    return load_task("grade-school").train[:6]


@lru_cache
def groups() -> list[Group]:
    return reasoner(Sampling()).answer(problems(), 8, KEY)


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
    assert best_of_n(GROUP, rewarded(numbers.strict)).text == "#### 4"
    ranked = {"#### 3": 2.0, "#### 4": -1.0, "#### 4.0": 1.0, "no": 3.0}

    def scorer(problem, samples):
        return [ranked[one.text] for one in samples]

    assert best_of_n(GROUP, scorer).text == "no"
    assert weighted_consistency(GROUP, scorer).text == "#### 3"  # 2 against -1 + 1
    assert weighted_consistency(GROUP, scorer, power=1.0).text == "#### 3"  # rank 2 of 4 against ranks 3 and 4: 3 = 3
    assert weighted_consistency(GROUP, scorer, power=0.5).text == "#### 4"


def test_a_sample_whose_score_fails_is_dropped_and_counted():
    def scorer(problem, samples):
        scores = {"#### 3": math.nan, "#### 4": 1.0, "#### 4.0": math.inf}
        return [scores[one.text] for one in samples]  # and an error for the last

    assert best_of_n(GROUP, scorer)[::2] == ("#### 4", 3)
    assert weighted_consistency(GROUP, scorer)[::2] == ("#### 4", 3)
    assert best_of_n(GROUP.first(1), scorer)[::2] == (None, 1)
    with pytest.raises(ValueError, match="1 scores to 4 samples"):
        best_of_n(GROUP, lambda problem, samples: [1.0])


def test_answers_cost_what_is_read_and_written():
    group, (config,) = groups()[0], reasoner().configs
    prompt, lengths = len(group.samples[0].prompt.tokens), [len(one.tokens) for one in group.samples]
    assert group.cost.prompt_tokens == prompt and group.cost.tokens == sum(lengths)
    flops = prefill_flops(config, prompt) + sum(decode_flops(config, prompt, length) for length in lengths)
    assert group.cost.flops == pytest.approx(flops) and group.cost.seconds > 0
    best = best_of_n(group, SelfCertainty(reasoner(Sampling())))
    assert best.cost.prompt_tokens == 2 * prompt + sum(lengths) and best.cost.flops > 1.5 * flops


def test_an_early_stop_gives_the_full_votes_answer_for_fewer_tokens():
    some = early_stopping_vote(reasoner(Sampling()), problems(), 8, KEY, microbatch_size_=2)
    for part, whole in zip(some, groups(), strict=True):
        assert [one.text for one in part.samples] == [one.text for one in whole.samples[: len(part.samples)]]
        assert self_consistency(part).text == self_consistency(whole).text
    assert sum(x.cost.tokens for x in some) < sum(x.cost.tokens for x in groups())
    assert len({len(part.samples) for part in some}) > 1


def test_thinking_within_its_budget():
    plain = [group.samples[0].text for group in reasoner().answer(problems(), 1, KEY)]
    free = force_budget(reasoner(), problems(), 1, KEY, budget=40, answer_tokens=8)
    assert [group.samples[0].text for group in free] == plain  # there was room
    for budget in (0, 7):
        for group, text in zip(force_budget(reasoner(), problems(), 2, KEY, budget=budget), plain, strict=True):
            for one in group.samples:
                thought, _, answer = one.text.partition("####")
                assert len(reasoner().tokenizer.encode(thought.rstrip())) <= budget + 1 and len(answer) < 40
                assert text.startswith(thought.removesuffix("\n")) and one.logps.size <= budget + 16
    again = force_budget(reasoner(), problems(), 1, KEY, budget=40, waits=1, answer_tokens=8)
    for group, text in zip(again, plain, strict=True):
        assert group.samples[0].text.startswith(text.partition("####")[0] + "Wait")


def test_a_search_that_keeps_the_only_way_is_the_model_itself():
    plain = [group.samples[0].text for group in reasoner().answer(problems(), 1, KEY)]
    for how in ({}, {"step_tokens": 5}):
        found = step_search(reasoner(), problems(), KEY, scorer=mean_logp, width=1, expand=1, **how)
        assert [one.text for one in found] == plain


def test_a_search_finds_what_its_scorer_likes():
    def checked(problem, samples):
        return [one.text.count("check") for one in samples]

    found = step_search(reasoner(Sampling()), problems(), KEY, scorer=checked, width=2, expand=4)
    sampled = np.mean(["check" in one.text for group in groups() for one in group.samples])
    assert np.mean(["check" in one.text for one in found]) > 2 * sampled


def test_a_refinement_is_kept_if_it_is_better():
    drafts = [one.text for one in refine(reasoner(), problems(), KEY, rounds=0)]
    assert drafts == [group.samples[0].text for group in reasoner().answer(problems(), 1, KEY)]
    kept = refine(reasoner(), problems(), KEY, scorer=lambda problem, samples: [1.0 for _ in samples])
    assert [one.text for one in kept] == drafts
    revised = refine(reasoner(), problems(), KEY)
    assert [one.text for one in revised] != drafts
    lost = refine(reasoner(), problems(), KEY, scorer=lambda problem, samples: [math.nan for _ in samples])
    assert [one.dropped for one in lost] == [2] * len(drafts)


def test_only_doubtful_problems_get_more():
    asked = []

    def expensive(some):
        asked.extend(some)
        return [group for group in groups() if group.problem in some]

    done = cascade(problems(), lambda some: [group.first(2) for group in groups()], expensive)
    doubtful = [g.problem for g in groups() if len({*map(numbers.parse_number, filter(None, g.answers[:2]))}) != 1]
    assert asked == doubtful and 0 < len(asked) < len(done)
    costs = {group.problem.index: group for group in groups()}
    for problem, one in zip(problems(), done, strict=True):
        assert one.cost.tokens >= costs[problem.index].first(2).cost.tokens


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, p: r.answer(p, 0, KEY), "0 samples of 6 problems"),
        (lambda r, p: r.answer([], 1, KEY), "1 samples of 0 problems"),
        (lambda r, p: early_stopping_vote(r, p, 4, KEY, microbatch_size_=5), "5 answers at once of 4"),
        (lambda r, p: force_budget(r, p, 1, KEY, budget=40, answer_tokens=9), "more than the 48 tokens"),
        (lambda r, p: force_budget(r, p, 1, KEY, budget=-1), "budget -1"),
        (lambda r, p: step_search(r, p, KEY, scorer=mean_logp, expand=0), "expand 0"),
        (lambda r, p: refine(r, p, KEY, rounds=-1), "-1 rounds"),
        (lambda r, p: refine(replace(r, max_tokens=300), p, KEY), "more than the model's context of 512"),
        (lambda r, p: load_inference_model("tiny", guide="tiny"), "base '': give both"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sampled(call, message):
    with pytest.raises(InputError, match=message):
        call(reasoner(), problems())

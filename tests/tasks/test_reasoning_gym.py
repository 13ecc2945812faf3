"""Datasets of reasoning-gym as tasks; hostile answers never reach a verifier that evaluates them."""

import importlib.util

import pytest

from jaxreason.errors import InputError
from jaxreason.rewards import numbers
from jaxreason.tasks import load_task
from jaxreason.tasks.reasoning_gym import accepts, harmless

needs_extra = pytest.mark.skipif(not importlib.util.find_spec("reasoning_gym"), reason="needs the extra rg")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("countdown", "simple_integration")]


@needs_extra
@pytest.mark.parametrize("name", ["gsm_symbolic", "chain_sum", "mini_sudoku", *SLOW])
def test_gold_answers_are_correct_and_others_are_not(name):
    task = load_task(f"rg:{name}")
    assert len(task.test) == 200 and len(task.train) > 500
    assert not {p.question for p in task.train} & {p.question for p in task.test}
    assert [p.question for p in load_task(f"rg:{name}").test] == [p.question for p in task.test]
    for problem in task.test[:30]:
        assert numbers.strict(f"So it is\n#### {problem.answer}", problem) == 1.0
        assert numbers.strict("#### 123456789", problem) == numbers.strict(problem.answer, problem) == 0.0


@pytest.mark.slow
@needs_extra
def test_a_verifier_accepts_more_than_the_gold_answer():
    problem = load_task("rg:countdown").test[0]
    other = f"0 + {problem.answer}"
    assert numbers.strict(f"#### ({problem.answer})", problem) == 1.0  # with brackets, the same numbers
    assert numbers.strict(f"#### {other}", problem) == 0.0  # uses a number that is not given


@needs_extra
def test_unknown_dataset():
    with pytest.raises(InputError, match="no dataset 'gsm_symbolik', the closest is 'gsm_symbolic': use --task rg:"):
        load_task("rg:gsm_symbolik")


class Evaluating:
    """Stands for a verifier that calls `eval` on the answer."""

    def score_answer(self, answer, entry):
        raise AssertionError(f"was given {answer}")


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').system('true')",
        "open('x')",
        "().__class__",
        "9**9**9",
        "(9**9)**9",
        "9**999",
        "9**(99)",
        "9^9^9",
        "factorial(99999)",
        "x.y",
        "[1]*9",
        "'a'*9",
        "f(9)",
        "1" * 201,
        "9** 9** 9",
        "2**-9**9",
    ],
)
def test_code_towers_and_calls_are_not_evaluated(answer):
    assert not harmless(answer)
    assert not accepts(Evaluating(), {"answer": "1"}, True, answer)


@pytest.mark.parametrize("answer", ["3*x**2 + C", "(4 + 5)*6 - 2/3", "sin(x) - 2.5*cos(x)", "-x**10/10", "_ Q _ _"])
def test_mathematics_is_harmless(answer):
    assert harmless(answer)


def test_an_answer_that_crashes_the_verifier_is_wrong():
    class Crashing:
        def score_answer(self, answer, entry):
            raise ZeroDivisionError

    assert not accepts(Crashing(), {"answer": "1"}, False, "1/0")

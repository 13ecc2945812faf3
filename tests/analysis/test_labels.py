"""Ways of reasoning: forms, behaviours, a judge's word, clusters."""

import re

import pytest

from jaxreason.analysis import cognitive, discovered, judged, structural
from jaxreason.errors import InputError
from jaxreason.tasks.grade_school import bare_equations, labelled_steps, one_expression, word_problems


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("#### 7", "answer only"),
        ("\\boxed{7}", "answer only"),
        ("(3+4)*2-1=13\n#### 13", "one expression"),
        ("3 + 4 * 2 = 11\n#### 11", "one expression"),
        ("3+4=7\n#### 7", "equations"),
        ("3+4=7\n7*2=14\n#### 14", "equations"),
        ("more: 3+4=7\nall: 7*2=14\n#### 14", "steps"),
        ("1. Add.\n2. Double.\n#### 14", "steps"),
        ("Step 1: add\n#### 14", "steps"),
        ("more: 3+4=7\ncheck: 7-4=3\n#### 7", "checked steps"),
        ("She has 3 + 4 = 7 apples.\n#### 7", "prose"),
        ("I do not know", "prose"),
        ("", "answer only"),
    ],
)
def test_forms(text, form):
    assert structural(text) == form


def test_the_forms_of_generated_solutions():
    problem = next(p for p in word_problems(0) if len(p.steps) > 2)
    forms = {"steps": labelled_steps, "equations": bare_equations, "one expression": one_expression}
    for form, write in forms.items():
        assert structural(f"{write(problem)}\n#### {problem.answer}") == form


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("5", "none"),
        ("Let us verify this. However, it is a mistake.", "backtracking+verification"),
        ("First halve it, then work back.", "subgoals+backward chaining"),
        ("Another option", "branching"),
    ],
)
def test_behaviours(text, label):
    assert set(cognitive(text).split("+")) >= set(label.split("+"))


def test_a_judge_is_asked_once_and_understood_only_where_it_is_clear():
    asked = []

    def judge(text):
        asked.append(text)
        return {"a": "It is **Algebra**.", "b": "algebra or guessing", "c": "prealgebra"}[text]

    label = judged(judge, ["algebra", "guessing"])
    assert [label(text) for text in "abcaa"] == ["algebra", "other", "other", "algebra", "algebra"]
    assert asked == ["a", "b", "c"]


def test_clusters_find_the_ways_that_texts_were_written_in():
    pytest.importorskip("sklearn")
    ways = (labelled_steps, bare_equations, one_expression)
    problems = [p for p, _ in zip(word_problems(0), range(200), strict=False) if len(p.steps) > 2]
    texts = [way(problem) for problem in problems for way in ways]
    label = discovered(texts, 3)
    named = [label(text) for text in texts]
    assert len(set(named)) == 3
    of_expressions = {named[i] for i in range(2, len(texts), 3)}
    of_labels = {named[i] for i in range(0, len(texts), 3)}
    assert not of_expressions & of_labels
    with pytest.raises(InputError, match=re.escape("1 patterns in")):
        discovered(texts, 1)

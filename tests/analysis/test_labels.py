"""Labellers: by form, by cognitive behaviour, by an LLM judge, by clusters."""

import re

import pytest

from jaxreason.analysis import cluster_labeller, cognitive, llm_labeller, structural
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


def test_a_judge_is_called_once_per_text_and_must_be_unambiguous():
    texts = []

    def judge(text):
        texts.append(text)
        return {"a": "It is **Algebra**.", "b": "algebra or guessing", "c": "prealgebra"}[text]

    label = llm_labeller(judge, ["algebra", "guessing"])
    assert [label(text) for text in "abcaa"] == ["algebra", "other", "other", "algebra", "algebra"]
    assert texts == ["a", "b", "c"]


def test_clusters_separate_solution_styles():
    pytest.importorskip("sklearn")
    styles = (labelled_steps, bare_equations, one_expression)
    problems = [p for p, _ in zip(word_problems(0), range(200), strict=False) if len(p.steps) > 2]
    texts = [style(problem) for problem in problems for style in styles]
    label = cluster_labeller(texts, 3)
    labels = [label(text) for text in texts]
    assert len(set(labels)) == 3
    assert not set(labels[0::3]) & set(labels[2::3])  # labelled steps, one expression
    with pytest.raises(InputError, match=re.escape("1 clusters of")):
        cluster_labeller(texts, 1)

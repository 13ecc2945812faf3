"""Generated problems: correct by independent arithmetic, deterministic, and held out from training."""

import re
from fractions import Fraction
from itertools import islice

import pytest

from jaxreason.rewards import numbers
from jaxreason.tasks import Problem, load_task
from jaxreason.tasks.grade_school import DIFFICULTIES, corpus, one_expression, with_answer, word_problems
from jaxreason.tasks.grade_school.generator import STYLES
from jaxreason.tasks.grade_school.premises import premises, sft_examples
from jaxreason.tasks.grade_school.stories import NEW_STORIES, STORIES, THINGS


def value(expression: str) -> Fraction:
    """Arithmetic by recursive descent, independent of the generator."""
    tokens = re.findall(r"\d+|[-+*/()]", expression)
    assert "".join(tokens) == expression

    def operand() -> Fraction:
        token = tokens.pop(0)
        if token != "(":
            return Fraction(int(token))
        inner = total()
        assert tokens.pop(0) == ")"
        return inner

    def product() -> Fraction:
        result = operand()
        while tokens and tokens[0] in "*/":
            result = result * operand() if tokens.pop(0) == "*" else result / operand()
        return result

    def total() -> Fraction:
        result = product()
        while tokens and tokens[0] in "+-":
            result = result + product() if tokens.pop(0) == "+" else result - product()
        return result

    result = total()
    assert not tokens
    return result


@pytest.mark.parametrize("level", DIFFICULTIES)
def test_every_equation_of_every_solution_is_true(level):
    difficulty = DIFFICULTIES[level]
    for problem in islice(word_problems("test", difficulty), 500):
        for style in STYLES:
            text = with_answer(style(problem), problem.answer)
            for left, right in re.findall(r"([-+*/()\d]+)=(\d+)", text):
                assert value(left) == int(right), text
            assert numbers.strict(text, Problem(problem.question, problem.answer, "", 0)) == 1.0
        assert value(one_expression(problem).split("=")[0]) == int(problem.answer)
        assert difficulty.steps[0] <= len(problem.steps) <= difficulty.steps[1]
        used = {int(n) for n in re.findall(r"\d+", problem.question)}
        assert max(used | {step.result for step in problem.steps}) <= max(difficulty.result, difficulty.amount)
        # the solution uses every number of the question and no other (2, for halving, excepted)
        assert used <= {n for step in problem.steps for n in (step.left, step.right)}
        known = used | {2}
        for step in problem.steps:
            assert {step.left, step.right} <= known
            known.add(step.result)


def test_every_story_is_generated():
    counts = {story.text: 0 for story in STORIES}
    patterns = {re.sub(r"\\\{\w\\\}", r"\\w+", re.escape(text)): text for text in counts}
    for problem in islice(word_problems("stories"), 2000):
        counts[next(text for pattern, text in patterns.items() if re.fullmatch(pattern, problem.question))] += 1
    assert min(counts.values()) > 10
    assert {len(story.steps) for story in STORIES} == {len(story.steps) for story in NEW_STORIES} == {1, 2, 3, 4}


OTHERS = r"(?:A|All|Answer|At|Can|Each|How|Is|It|Monday|One|Parking|Sunday|The|Then|There|They|Tuesday|With)\b"


def people(question: str) -> set[str]:
    return set(re.findall(rf"\b(?!{OTHERS})[A-Z][a-z]*", question))


def anonymous(question: str) -> str:
    """The question without names and things: the story and its numbers."""
    return re.sub(r"\b(?:" + "|".join(people(question) | set(THINGS)) + r")\b", "_", question)


def story_of(question: str) -> str:
    return re.sub(r"\d+", "#", anonymous(question))


@pytest.mark.slow
def test_held_out_sets_never_occur_in_training():
    sets = load_task("grade-school").held_out
    assert {name: len(problems) for name, problems in sets.items()} == dict.fromkeys(sets, 1000)
    trained = [problem.question for problem in load_task("grade-school").train]
    trained += [problem.question for problem in islice(word_problems("another seed"), 20_000)]
    stories, problems = set(map(story_of, trained)), set(map(anonymous, trained))
    assert len(stories) == len(STORIES)
    assert {story_of(p.question) for p in sets["held-out"]} == {story_of(p.question) for p in sets["larger_numbers"]}
    assert {story_of(p.question) for p in sets["held-out"]} == stories  # the stories are known,
    assert not {anonymous(p.question) for p in sets["held-out"]} & problems  # the numbers are not,
    known = set().union(*map(people, trained))
    assert len(known) > 5000
    for name in ("held-out", "new_stories", "larger_numbers"):  # nor are the names
        assert not known & set().union(*(people(p.question) for p in sets[name]))
    assert not {story_of(p.question) for p in sets["new_stories"]} & stories
    largest = DIFFICULTIES["medium"].result
    for problem in sets["larger_numbers"]:
        assert max(int(n) for n in re.findall(r"\d+", problem.question + problem.solution)) > largest
    for problems in sets.values():
        assert len({problem.question for problem in problems}) == len(problems)
        assert [problem.index for problem in problems] == list(range(len(problems)))


def test_the_same_seed_generates_the_same_problems():
    first, again, other = (list(islice(word_problems(seed), 50)) for seed in (7, 7, 8))
    assert first == again != other
    texts = [list(islice(corpus.pretraining_texts(1, drills=0.3, premises=0.3), 50)) for _ in range(2)]
    assert texts[0] == texts[1]


def test_twins_differ_in_one_premise_and_in_their_answer():
    contradictory, sound = premises(0, 300)
    assert {problem.answer for problem in contradictory} == {"contradiction"}
    assert "contradiction" not in {problem.answer for problem in sound}
    for flawed, twin in zip(contradictory, sound, strict=True):
        a, b = flawed.question.split(), twin.question.split()
        assert a != b and a[-11:] == b[-11:]  # the same question and instruction
    for problems, same in ((contradictory, True), (sound, False)):
        text = next(problem.question for problem in problems if "exactly" in problem.question)
        first, second = re.findall(r"(\w+) has exactly", text)
        assert (first == second) == same


def contradicts(question: str) -> bool | None:
    """Decided from the text alone, for the three kinds of `TRAIN_KINDS`; None for other texts."""
    if pairs := re.findall(r"(\w+) is \w+ than (\w+)\.", question):
        return pairs[0][0] == pairs[2][1]
    counts = list(map(int, re.findall(r"\d+", question)))
    if "of these" in question:
        return counts[1] > counts[0]
    return counts[0] != counts[1] + counts[2] if "class" in question else None


def test_training_never_contains_held_out_contradictions():
    trained = dict(islice(sft_examples("test"), 3000))
    for question, answer in trained.items():
        assert (answer == "contradiction") == bool(contradicts(question)), question
    known = set().union(*map(people, trained))
    for problem in load_task("grade-school").extra_eval_sets["contradictions"]:
        assert contradicts(problem.question) is None
        assert not people(problem.question) & known


def test_verdicts_are_graded_as_words():
    problem = Problem("?", "contradiction", "", 0)
    assert numbers.strict("They disagree.\n#### Contradiction.", problem) == 1.0
    assert numbers.strict("#### 7", problem) == numbers.lenient("#### 7", problem) == 0.0
    assert numbers.lenient("So it is a contradiction.", problem) == 1.0
    assert numbers.strict("So it is a contradiction.", problem) == 0.0
    assert numbers.lenient("No contradiction here, so yes", Problem("?", "yes", "", 0)) == 1.0
    assert numbers.lenient("noyes", Problem("?", "yes", "", 0)) == 0.0


def test_drills_are_equations_of_the_difficulty():
    for text in islice(corpus.pretraining_texts(3, drills=1.0, premises=0.0), 50):
        for line in text.split("\n"):
            left, right = line.split("=")
            assert value(left) == int(right) and 1 <= int(right) <= DIFFICULTIES["medium"].result

"""Generated word problems with worked solutions in GSM8K's format: unlimited, from a seed, at a chosen difficulty.

Held-out sets that never occur in training: known stories with new numbers and names (`test`), new stories, larger
numbers, and contradictory premises (premises.py). A hash of story and numbers decides which numbers are held out, so
no seed of the training stream can produce a held-out problem.
"""

import hashlib
import operator
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

from jaxreason.tasks.examples import GRADE_SCHOOL
from jaxreason.tasks.grade_school.premises import premises
from jaxreason.tasks.grade_school.stories import NEW_STORIES, STORIES, THINGS, Story, names
from jaxreason.tasks.gsm8k import INSTRUCTION
from jaxreason.tasks.problem import Problem, Task

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True)
class Difficulty:
    """Bounds on the numbers of a problem. Its repr seeds the generator: renaming a field changes every problem."""

    steps: tuple[int, int] = (1, 4)
    """Minimum and maximum number of solution steps."""
    factor: int = 12
    """Largest factor in a question."""
    amount: int = 99
    """Largest other number in a question."""
    result: int = 200
    """Largest number in a solution."""
    above: int = 0
    """Every problem has a number above this."""


DIFFICULTIES = {
    "easy": Difficulty(steps=(1, 2), factor=5, amount=20, result=40),
    "medium": Difficulty(),
    "hard": Difficulty(steps=(3, 4), factor=20, amount=200, result=400),
}


class Step(NamedTuple):
    label: str
    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}={self.result}"


class WordProblem(NamedTuple):
    question: str
    steps: tuple[Step, ...]
    expression: str
    """All steps as one expression: `(3+4)*2`."""

    @property
    def answer(self) -> str:
        return str(self.steps[-1].result)


def word_problems(
    seed: int | str,
    difficulty: Difficulty = DIFFICULTIES["medium"],
    *,
    stories: Sequence[Story] = STORIES,
    new_names: bool = False,
    new_numbers: bool | None = False,
) -> Iterator[WordProblem]:
    """Yields problems without end. `new_names` and `new_numbers` select held-out ones, which False never yields.

    `new_numbers=None`: any numbers.
    """
    rng = random.Random(f"{seed} {difficulty}")
    low, high = difficulty.steps
    stories = [story for story in stories if low <= len(story.steps) <= high]
    while True:
        story = rng.choice(stories)
        numbers, (steps, expression) = _draw(rng, story, difficulty, new_numbers)
        words = dict(zip("ABC", names(rng, 3, new=new_names), strict=True))
        words |= dict(zip("xy", rng.sample(THINGS, 2), strict=True))
        yield WordProblem(story.text.format(**numbers, **words), steps, expression)


def _draw(rng: random.Random, story: Story, difficulty: Difficulty, new: bool | None):
    """Numbers that fit the story and the difficulty, and the solution."""
    while True:
        factors, amounts = range(2, difficulty.factor + 1), range(2, difficulty.amount + 1)
        numbers = dict(zip("kmnp", rng.choices(factors, k=4), strict=True))
        numbers |= dict(zip("abc", rng.choices(amounts, k=3), strict=True))
        numbers = {name: value for name, value in numbers.items() if f"{{{name}}}" in story.text}
        solved = solve(story, numbers)
        if solved is None:
            continue
        largest = max(max(step.left, step.right, step.result) for step in solved[0])
        if difficulty.above < largest <= difficulty.result and new in (None, _reserved(story, numbers)):
            return numbers, solved


def solve(story: Story, numbers: dict[str, int]) -> tuple[tuple[Step, ...], str] | None:
    """The steps with their numbers, and one expression of all; None unless every result is a positive integer."""
    values, steps = dict(numbers), []
    texts = {name: (str(value), "") for name, value in numbers.items()}  # expression, its outermost operator
    for step in story.steps:
        label, _, left, sign, right = step.split()
        for literal in {left, right} - values.keys():
            values[literal], texts[literal] = int(literal), (literal, "")
        x, y = values[left], values[right]
        if sign == "/" and x % y:
            return None
        values[label] = OPERATIONS[sign](x, y)
        if values[label] < 1:
            return None
        steps.append(Step(label, x, sign, y, values[label]))
        texts[label] = _join(texts[left], sign, texts[right]), sign
    return tuple(steps), texts[label][0]


def _join(left: tuple[str, str], sign: str, right: tuple[str, str]) -> str:
    """`left sign right`, with brackets where precedence needs them."""
    brackets = {"+": ("", ""), "-": ("", "+-"), "*": ("+-", "+-"), "/": ("+-", "+-*/")}[sign]
    pairs = zip((left, right), brackets, strict=True)
    return sign.join(f"({text})" if outer and outer in loose else text for (text, outer), loose in pairs)


def _reserved(story: Story, numbers: dict[str, int]) -> bool:
    """Whether these numbers of this story are held out: a quarter, by sha256, the same on every machine."""
    return hashlib.sha256(f"{story.text} {sorted(numbers.items())}".encode()).digest()[0] < 64


# --- solution styles; `with_answer` adds the same last line to each ---


def labelled_steps(problem: WordProblem) -> str:
    return "\n".join(f"{step.label}: {step}" for step in problem.steps)


def bare_equations(problem: WordProblem) -> str:
    return "\n".join(map(str, problem.steps))


def one_expression(problem: WordProblem) -> str:
    return f"{problem.expression}={problem.answer}"


def checked_steps(problem: WordProblem) -> str:
    """Labelled steps, then the last one verified by the inverse operation."""
    _, left, sign, right, result = problem.steps[-1]
    return f"{labelled_steps(problem)}\ncheck: {Step('', result, INVERSE[sign], right, left)}"


def answer_alone(problem: WordProblem) -> str:
    return ""


STYLES = (labelled_steps, bare_equations, one_expression, checked_steps, answer_alone)


def with_answer(solution: str, answer: str) -> str:
    return f"{solution}\n#### {answer}".lstrip()


# --- the task ---

TRAINING_SEED, HELD_OUT_SEED = 1, 2
TRAINING, HELD_OUT = 10_000, 1_000  # problems


def as_problems(stream: Iterator[WordProblem], count: int) -> list[Problem]:
    """The first `count` problems with distinct questions."""
    problems: dict[str, Problem] = {}
    for item in islice(stream, 50 * count):
        if len(problems) == count:
            break
        if item.question not in problems:
            problems[item.question] = Problem(item.question, item.answer, labelled_steps(item), len(problems))
    return list(problems.values())


def load(level: str) -> Task:
    """The task at a level of `DIFFICULTIES`: training problems and all held-out sets."""
    difficulty = DIFFICULTIES[level]
    larger = replace(
        difficulty,
        factor=2 * difficulty.factor,
        amount=4 * difficulty.amount,
        result=4 * difficulty.result,
        above=difficulty.result,
    )
    unseen = partial(word_problems, HELD_OUT_SEED, new_names=True)
    contradictions, sound_twins = premises(HELD_OUT_SEED, HELD_OUT)
    return Task(
        "grade-school" if level == "medium" else f"grade-school:{level}",
        train=as_problems(word_problems(TRAINING_SEED, difficulty), TRAINING),
        test=as_problems(unseen(difficulty, new_numbers=True), HELD_OUT),
        instruction=INSTRUCTION,
        examples=GRADE_SCHOOL,
        extra_eval_sets={
            "new_stories": as_problems(unseen(difficulty, stories=NEW_STORIES, new_numbers=None), HELD_OUT),
            "larger_numbers": as_problems(unseen(larger, new_numbers=None), HELD_OUT),
            "contradictions": contradictions,
            "sound_twins": sound_twins,
        },
    )

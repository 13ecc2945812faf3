"""Texts to learn from, drawn without end from the generator of `grade-school`: what is read, and what is taught."""

import random
from collections.abc import Callable, Iterator

from jaxreason.tasks.grade_school.generator import (
    DIFFICULTIES,
    OPERATIONS,
    STYLES,
    Difficulty,
    Step,
    WordProblem,
    with_answer,
    word_problems,
)
from jaxreason.tasks.grade_school.premises import sft_examples as premise_lessons

Style = Callable[[WordProblem], str]

SUMS = 8  # equations in a row of them


def pretraining_texts(
    seed: int | str, *, drills: float, premises: float, difficulty: Difficulty = DIFFICULTIES["medium"]
) -> Iterator[str]:
    """Plain texts: word problems with a solution in any style.

    A share `drills` of the texts are rows of equations, a share `premises` questions about what premises say.
    """
    rng, about_premises = random.Random(f"reading {seed}"), premise_lessons(seed)
    for problem in word_problems(seed, difficulty):
        kind = rng.random()
        if kind < drills:
            yield "\n".join(str(equation(rng, difficulty)) for _ in range(SUMS))
        elif kind < drills + premises:
            question, answer = next(about_premises)
            yield f"{question}\n{with_answer('', answer)}"
        else:
            yield f"{problem.question}\n{with_answer(rng.choice(STYLES)(problem), problem.answer)}"


def sft_examples(
    seed: int | str,
    styles: dict[Style, float],
    *,
    premises: float,
    difficulty: Difficulty = DIFFICULTIES["medium"],
) -> Iterator[tuple[str, str]]:
    """Questions and what to answer, in styles of the given weights; a share `premises` is about what premises say."""
    rng, about_premises = random.Random(f"lessons {seed}"), premise_lessons(seed)
    for problem in word_problems(seed, difficulty):
        if rng.random() < premises:
            question, answer = next(about_premises)
            yield question, with_answer("", answer)
        else:
            (style,) = rng.choices(list(styles), styles.values())
            yield problem.question, with_answer(style(problem), problem.answer)


def equation(rng: random.Random, difficulty: Difficulty) -> Step:
    """One that a solution of this difficulty may contain."""
    while True:
        sign = rng.choice("+-*/")
        right = rng.randint(2, difficulty.amount if sign in "+-" else difficulty.factor)
        left = rng.randint(2, difficulty.result)
        if sign == "/" and left % right:
            continue
        result = OPERATIONS[sign](left, right)
        if 1 <= result <= difficulty.result:
            return Step("", left, sign, right, result)

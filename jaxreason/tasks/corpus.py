"""Texts to learn from, drawn without end from the generator of `grade-school`: what is read, and what is taught."""

import random
from collections.abc import Callable, Iterator

from jaxreason.tasks.grade_school import (
    DIFFICULTIES,
    OPERATIONS,
    STYLES,
    Difficulty,
    Step,
    WordProblem,
    with_answer,
    word_problems,
)

Style = Callable[[WordProblem], str]

SUMS = 8  # equations in a row of them


def reading(seed: int | str, *, drills: float, difficulty: Difficulty = DIFFICULTIES["medium"]) -> Iterator[str]:
    """Plain texts: problems with a solution in any style; a share `drills` of the texts are rows of equations."""
    rng = random.Random(f"reading {seed}")
    for problem in word_problems(seed, difficulty):
        if rng.random() < drills:
            yield "\n".join(str(equation(rng, difficulty)) for _ in range(SUMS))
        else:
            yield f"{problem.question}\n{with_answer(rng.choice(STYLES)(problem), problem.answer)}"


def lessons(
    seed: int | str, styles: dict[Style, float], *, difficulty: Difficulty = DIFFICULTIES["medium"]
) -> Iterator[tuple[str, str]]:
    """Questions and what to answer, in styles of the given weights."""
    rng = random.Random(f"lessons {seed}")
    for problem in word_problems(seed, difficulty):
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

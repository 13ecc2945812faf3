"""Endless training data from the generator of `grade-school`: pre-training texts and SFT examples.

The strings that seed `random.Random` are part of the data: changing one changes every text.
"""

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
from jaxreason.tasks.grade_school.premises import sft_examples as premise_examples

Style = Callable[[WordProblem], str]

DRILL_EQUATIONS = 8  # equations of a drill


def pretraining_texts(
    seed: int | str, *, drills: float, premises: float, difficulty: Difficulty = DIFFICULTIES["medium"]
) -> Iterator[str]:
    """Yields plain texts: word problems with a solution in a random style.

    A share `drills` of the texts are lists of equations, a share `premises` are questions about premises.
    """
    rng, premise_stream = random.Random(f"reading {seed}"), premise_examples(seed)
    for problem in word_problems(seed, difficulty):
        kind = rng.random()
        if kind < drills:
            yield "\n".join(str(equation(rng, difficulty)) for _ in range(DRILL_EQUATIONS))
        elif kind < drills + premises:
            question, answer = next(premise_stream)
            yield f"{question}\n{with_answer('', answer)}"
        else:
            yield f"{problem.question}\n{with_answer(rng.choice(STYLES)(problem), problem.answer)}"


def sft_examples(
    seed: int | str, styles: dict[Style, float], *, premises: float, difficulty: Difficulty = DIFFICULTIES["medium"]
) -> Iterator[tuple[str, str]]:
    """Yields (question, answer) with solution styles sampled by weight; a share `premises` are about premises."""
    rng, premise_stream = random.Random(f"lessons {seed}"), premise_examples(seed)
    for problem in word_problems(seed, difficulty):
        if rng.random() < premises:
            question, answer = next(premise_stream)
            yield question, with_answer("", answer)
        else:
            (style,) = rng.choices(list(styles), list(styles.values()))
            yield problem.question, with_answer(style(problem), problem.answer)


def equation(rng: random.Random, difficulty: Difficulty) -> Step:
    """A random equation that a solution of this difficulty may contain."""
    while True:
        sign = rng.choice("+-*/")
        right = rng.randint(2, difficulty.amount if sign in "+-" else difficulty.factor)
        left = rng.randint(2, difficulty.result)
        if sign == "/" and left % right:
            continue
        result = OPERATIONS[sign](left, right)
        if 1 <= result <= difficulty.result:
            return Step("", left, sign, right, result)

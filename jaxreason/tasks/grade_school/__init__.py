"""Generated word problems: the generator, its stories, problems about premises, and texts to learn from."""

from jaxreason.tasks.grade_school.generator import (
    DIFFICULTIES,
    Difficulty,
    Step,
    WordProblem,
    answer_alone,
    bare_equations,
    checked_steps,
    labelled_steps,
    load,
    one_expression,
    with_answer,
    word_problems,
)

__all__ = [
    "DIFFICULTIES",
    "Difficulty",
    "Step",
    "WordProblem",
    "answer_alone",
    "bare_equations",
    "checked_steps",
    "labelled_steps",
    "load",
    "one_expression",
    "with_answer",
    "word_problems",
]

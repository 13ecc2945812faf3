"""Generated word problems: generator, stories, contradictory premises, and the training corpus."""

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
    "DIFFICULTIES", "Difficulty", "Step", "WordProblem", "answer_alone", "bare_equations", "checked_steps",
    "labelled_steps", "load", "one_expression", "with_answer", "word_problems",
]  # fmt: skip

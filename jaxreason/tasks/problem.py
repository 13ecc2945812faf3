"""The nouns of a task: a problem with its gold answer, and a task as two lists of problems and one instruction."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Problem:
    question: str
    answer: str
    """The gold final answer as text: `18`, `2/3`, `\\frac{3}{4}`."""
    solution: str
    """The worked solution, or the empty string."""
    index: int
    """Position in the source file, the same on every machine: what per-row random keys are folded with."""


class Task(NamedTuple):
    name: str
    train: list[Problem]
    test: list[Problem]
    """Held out: shares no question text with `train` wherever this library makes the split."""
    instruction: str
    """One sentence that tells the model how to state its answer."""


def messages(task: Task, problem: Problem) -> list[dict[str, str]]:
    """One user turn: the question, then the instruction. Chat templates and plain prompts start from this."""
    return [{"role": "user", "content": f"{problem.question}\n\n{task.instruction}"}]

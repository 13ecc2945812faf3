"""The nouns of a task: a problem with its gold answer, and a task as two lists of problems and one instruction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from jaxreason.errors import InputError


@dataclass(frozen=True)
class Problem:
    """A question and its gold answer, both text; make your own as `Problem(question, answer, solution="", index=i)`."""

    question: str
    answer: str
    """The gold final answer as text: `18`, `2/3`, `\\frac{3}{4}`."""
    solution: str
    """The worked solution, or the empty string."""
    index: int
    """Position in the source file, the same on every machine: what per-row random keys are folded with."""
    verify: Callable[[str], bool] | None = None
    """Judges a final answer where comparing it with `answer` is not enough."""


class Task(NamedTuple):
    """Problems to learn from, problems to be measured on, and how to ask."""

    name: str
    train: list[Problem]
    test: list[Problem]
    """Held out: shares no question text with `train` wherever this library makes the split."""
    instruction: str
    """One sentence that tells the model how to state its answer."""
    examples: tuple[Problem, ...] = ()
    """Worked examples for few-shot prompts, their solutions stated as the instruction asks."""
    extra_eval_sets: Mapping[str, list[Problem]] = MappingProxyType({})
    """Further held-out sets, by name."""

    @property
    def held_out(self) -> dict[str, list[Problem]]:
        return {"held-out": self.test, **self.extra_eval_sets}


def messages(task: Task, problem: Problem, shots: int = 0) -> list[dict[str, str]]:
    """The question with the instruction; or, after `shots` worked examples that show how to answer, the question alone.

    Chat templates and plain prompts start from this.
    """
    if shots > len(task.examples):
        most = len(task.examples)
        raise InputError(f"{shots} shots are more than the {most} worked examples of {task.name}: take {most} at most")
    if not shots:
        return [{"role": "user", "content": f"{problem.question}\n\n{task.instruction}"}]
    turns = []
    for example in task.examples[:shots]:
        turns += [("user", example.question), ("assistant", example.solution)]
    return [{"role": role, "content": content} for role, content in [*turns, ("user", problem.question)]]


def validation_split(task: Task, count: int, *, at_least: int) -> tuple[list[Problem], list[Problem]]:
    """The first `count` training problems for validation, and the rest, which must be `at_least` so many."""
    validation, train = task.train[:count], task.train[count:]
    if len(train) < at_least:
        raise InputError(
            f"{task.name} leaves {len(train)} training problems after {count} for validation, fewer than the "
            f"{at_least} of one step: lower --eval-problems or --prompts-per-step"
        )
    return validation, train

"""`Problem`: a question with its gold answer. `Task`: train and test problems and an instruction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from jaxreason.errors import InputError


@dataclass(frozen=True)
class Problem:
    """A question and its gold answer, as text; your own: `Problem(question, answer, solution="", index=i)`."""

    question: str
    answer: str
    """The gold final answer as text: `18`, `2/3`, `\\frac{3}{4}`."""
    solution: str
    """The worked solution, or an empty string."""
    index: int
    """Position in the source file, the same on every machine; folded into the random keys of its completions."""
    verify: Callable[[str], bool] | None = None
    """Decides whether a final answer is correct, where comparing it with `answer` is not enough."""
    alternatives: tuple[str, ...] = ()
    """Further answers that are as right as `answer`."""

    @property
    def golds(self) -> tuple[str, ...]:
        return self.answer, *self.alternatives


class Task(NamedTuple):
    """Training problems, held-out problems, and the instruction that prompts them."""

    name: str
    train: list[Problem]
    test: list[Problem]
    """Held out: shares no question text with `train` where this library makes the split."""
    instruction: str
    """One sentence that tells the model how to format its answer."""
    examples: tuple[Problem, ...] = ()
    """Few-shot examples; their solutions follow the instruction."""
    extra_eval_sets: Mapping[str, list[Problem]] = MappingProxyType({})
    """Further held-out sets, by name."""

    @property
    def held_out(self) -> dict[str, list[Problem]]:
        return {"held-out": self.test, **self.extra_eval_sets}


def messages(task: Task, problem: Problem, shots: int = 0) -> list[dict[str, str]]:
    """The prompt of a problem as chat messages: the question and the instruction, or, after `shots` worked examples,
    the question alone."""
    if shots > (count := len(task.examples)):
        raise InputError(f"{shots} shots exceed the {count} worked examples of {task.name}: use {count} at most")
    if not shots:
        return [{"role": "user", "content": f"{problem.question}\n\n{task.instruction}"}]
    turns = []
    for example in task.examples[:shots]:
        turns += [("user", example.question), ("assistant", example.solution)]
    return [{"role": role, "content": content} for role, content in [*turns, ("user", problem.question)]]


def validation_split(task: Task, count: int, *, at_least: int) -> tuple[list[Problem], list[Problem]]:
    """Splits off the first `count` training problems for validation; the rest must be at least `at_least`."""
    validation, train = task.train[:count], task.train[count:]
    if len(train) < at_least:
        raise InputError(
            f"{task.name} leaves {len(train)} training problems after {count} for validation, fewer than the "
            f"{at_least} of one step: lower --eval-problems or --prompts-per-step"
        )
    return validation, train

"""Datasets of `reasoning-gym` as tasks, `rg:NAME`: about 100 generated tasks with verifiers (arXiv 2505.24760).

Only a full score counts as correct; partial credit, which some verifiers give for format alone, is ignored.
"""

import re
from difflib import get_close_matches
from functools import partial
from typing import Any

from jaxreason.errors import InputError
from jaxreason.tasks.problem import Problem, Task

INSTRUCTION = "Think step by step, then end with `#### ANSWER`, where ANSWER is the final answer alone."
TRAIN, TEST = 1000, 200  # problems; some datasets take seconds to generate this many

EVALUATING = {
    *("string_insertion", "spiral_matrix", "binary_matrix", "n_queens", "puzzle24", "countdown"),
    *("simple_integration", "intermediate_integration", "polynomial_multiplication"),
}
"""Datasets whose verifiers pass the answer to Python's or sympy's `eval`."""


def load(name: str) -> Task:
    try:
        import reasoning_gym  # an optional dependency, slow to import
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise InputError(f"task 'rg:{name}' needs reasoning-gym; run: pip install 'jaxreason[rg]'") from error
    if name not in DATASETS:
        closest = get_close_matches(name, DATASETS, n=1, cutoff=0)[0]
        raise InputError(f"reasoning-gym has no dataset {name!r}, the closest is {closest!r}: use --task rg:{closest}")

    def problems(seed: int, count: int) -> list[Problem]:
        dataset = reasoning_gym.create_dataset(name, seed=seed, size=count)
        return [problem(dataset, index, dataset[index]) for index in range(count)]

    def problem(dataset: Any, index: int, entry: dict) -> Problem:
        verify = partial(accepts, dataset, entry, name in EVALUATING)
        return Problem(entry["question"], str(entry["answer"]), "", index, verify)

    test = problems(2, TEST)
    held_out = {problem.question for problem in test}
    train = [problem for problem in problems(1, TRAIN) if problem.question not in held_out]
    return Task(f"rg:{name}", train, test, INSTRUCTION)


def accepts(dataset: Any, entry: dict, guarded: bool, answer: str) -> bool:
    """Whether the verifier gives `answer` a full score; if `guarded`, it is called on harmless answers only."""
    if guarded and not harmless(answer):
        return answer == entry["answer"]
    try:
        return dataset.score_answer(answer, entry) >= 1
    except Exception:  # an answer that crashes the verifier is wrong
        return False


FUNCTIONS = {"sin", "cos", "tan", "sec", "exp", "log", "ln", "sqrt", "asin", "acos", "atan", "sinh", "cosh", "tanh"}


def harmless(answer: str) -> bool:
    """Whether `eval` of the text is plain arithmetic: no call, attribute access or tower of powers."""
    if len(answer) > 200 or re.search(r"__|[^\w\s+\-*/(),.^]|\.\s*[^\W\d]|[^\W\d]\.", answer):
        return False
    if re.search(r"\)\s*(\*\*|\^)|(\*\*|\^)\s*(\(|-?\d{3}|-?\w+\s*(\*\*|\^))", answer):
        return False
    return set(re.findall(r"([^\W\d]\w*)\s*\(", answer)) <= FUNCTIONS

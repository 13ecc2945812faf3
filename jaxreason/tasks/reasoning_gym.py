"""Any dataset of `reasoning-gym` as a task, `rg:NAME`: about 100 procedural tasks with verifiers (arXiv 2505.24760).

Only a full score counts as right; the partial credit that some verifiers give for form alone is left out.
"""

import re
from difflib import get_close_matches
from functools import partial
from typing import Any

from jaxreason.errors import InputError
from jaxreason.tasks.problem import Problem, Task

INSTRUCTION = "Think step by step, then end with `#### ANSWER`, where ANSWER is the final answer alone."
TRAIN, TEST = 1000, 200  # problems; some datasets need seconds for that many

EVALUATING = {
    *("string_insertion", "spiral_matrix", "binary_matrix", "n_queens", "puzzle24", "countdown"),
    *("simple_integration", "intermediate_integration", "polynomial_multiplication"),
}
"""Datasets whose verifiers hand the answer to Python's or sympy's `eval`."""


def load(name: str) -> Task:
    try:
        import reasoning_gym  # imported where used: it is an extra, and slow
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise InputError(f"task 'rg:{name}' needs reasoning-gym; run: pip install 'jaxreason[rg]'") from error
    if name not in DATASETS:
        closest = get_close_matches(name, DATASETS, n=1, cutoff=0)[0]
        raise InputError(f"reasoning-gym has no dataset {name!r}, the closest is {closest!r}: give --task rg:{closest}")

    def problems(seed: int, count: int) -> list[Problem]:
        dataset = reasoning_gym.create_dataset(name, seed=seed, size=count)
        return [problem(dataset, index, dataset[index]) for index in range(count)]

    def problem(dataset: Any, index: int, entry: dict) -> Problem:
        verify = partial(accepts, dataset, entry, name in EVALUATING)
        return Problem(entry["question"], str(entry["answer"]), "", index, verify)

    test = problems(2, TEST)
    asked = {problem.question for problem in test}
    train = [problem for problem in problems(1, TRAIN) if problem.question not in asked]
    return Task(f"rg:{name}", train, test, INSTRUCTION)


def accepts(dataset: Any, entry: dict, guarded: bool, answer: str) -> bool:
    """Whether the dataset's verifier gives `answer` its full score; if `guarded`, it sees only harmless answers."""
    if guarded and not harmless(answer):
        return answer == entry["answer"]
    try:
        return dataset.score_answer(answer, entry) >= 1
    except Exception:  # a verifier that stumbles over an answer does not accept it
        return False


FUNCTIONS = {"sin", "cos", "tan", "sec", "exp", "log", "ln", "sqrt", "asin", "acos", "atan", "sinh", "cosh", "tanh"}


def harmless(answer: str) -> bool:
    """Whether `eval` can do nothing with the text but arithmetic in moderate numbers: no call, attribute or tower."""
    if len(answer) > 200 or re.search(r"__|[^\w\s+\-*/(),.^]|\.\s*[^\W\d]|[^\W\d]\.", answer):
        return False
    if re.search(r"\)\s*(\*\*|\^)|(\*\*|\^)\s*(\(|-?\d{3}|-?\w+\s*(\*\*|\^))", answer):
        return False
    return set(re.findall(r"([^\W\d]\w*)\s*\(", answer)) <= FUNCTIONS

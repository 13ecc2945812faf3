"""Tasks by name, for the command line."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from jaxreason.errors import InputError
from jaxreason.tasks import grade_school, gsm8k, math500, mawps, reasoning_gym, svamp
from jaxreason.tasks.examples import GRADE_SCHOOL
from jaxreason.tasks.files import number_text, parse_jsonl, read_bytes, split_by_hash
from jaxreason.tasks.problem import Task

TASKS: dict[str, Callable[[str | Path | None], Task]] = {
    "grade-school": lambda data: grade_school.load("medium"),
    "grade-school:easy": lambda data: grade_school.load("easy"),
    "grade-school:hard": lambda data: grade_school.load("hard"),
    "gsm8k": gsm8k.load,
    "svamp": svamp.load,
    "mawps": mawps.load,
    "math500": math500.load,
}


def load_task(name: str, data: str | Path | None = None) -> Task:
    """Loads a task by name; its files are read from the folder `data`, or downloaded.

    `rg:NAME` is a dataset of `reasoning-gym`; a name ending in `.jsonl` is a file of `question` and `answer` lines.
    """
    if name.startswith("rg:"):
        return reasoning_gym.load(name.removeprefix("rg:"))
    if name.endswith(".jsonl"):
        return task_from_jsonl(Path(name))
    if name not in TASKS:
        closest = get_close_matches(name, TASKS, n=1, cutoff=0)[0]
        raise InputError(
            f"task {name!r} is unknown, the closest is {closest!r}; choose {', '.join(TASKS)}, rg:NAME or a .jsonl file"
        )
    return TASKS[name](data)


def task_from_jsonl(path: Path) -> Task:
    """A task from lines with `question` and `answer`; a fifth of the questions, chosen by hash, is the test split.

    `answer` is the final answer (text or number), a list of answers that are all right, or a worked solution ending in
    `#### ANSWER` as in GSM8K.
    """
    fields = {"question": (str,), "answer": (str, int, float, list)}
    problems = []
    for index, row in parse_jsonl(read_bytes(path), f"{path}", fields):
        given = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        if not given or any(type(each) not in (str, int, float) for each in given):
            raise InputError(f"{path} line {index + 1} has 'answer' = {given}; give texts or numbers, at least one")
        answer, *others = (each if isinstance(each, str) else number_text(each) for each in given)
        problem = replace(gsm8k.problem(row["question"], answer, index), alternatives=tuple(others))
        if not (problem.question and all(problem.golds)):
            raise InputError(f"{path} line {index + 1} has an empty question or answer; fill it in or delete the line")
        problems.append(problem)
    train, test = split_by_hash(problems)
    if not (train and test):
        raise InputError(f"{path} splits into {len(train)} training and {len(test)} test problems; add problems")
    return Task(path.stem, train, test, gsm8k.INSTRUCTION, GRADE_SCHOOL)

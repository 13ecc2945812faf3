"""GSM8K: 7,473 + 1,319 grade-school word problems with worked solutions (Cobbe et al. 2021, arXiv 2110.14168; MIT)."""

import re
from pathlib import Path

from jaxreason.tasks.examples import GRADE_SCHOOL
from jaxreason.tasks.files import File, load_file, parse_jsonl
from jaxreason.tasks.problem import Problem, Task

INSTRUCTION = "Think step by step, then end with a last line `#### N`, where N is the final answer as a number."

_FOLDER = (
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/"
    "grade_school_math/data/"
)
TRAIN = File(
    path="gsm8k/train.jsonl",
    url=_FOLDER + "train.jsonl",
    sha256="17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
)
TEST = File(
    path="gsm8k/test.jsonl",
    url=_FOLDER + "test.jsonl",
    sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
)


def problem(question: str, answer: str, index: int) -> Problem:
    """Parses a worked solution whose last line is `#### N`; without `####`, the whole text is the final answer.

    Calculator annotations, as in `48/2 = <<48/2=24>>24`, are removed from the solution.
    """
    solution, _, final = answer.rpartition("####")
    solution = re.sub("<<[^<>]*>>", "", solution)
    return Problem(question=question.strip(), answer=final.strip(), solution=solution.strip(), index=index)


def load(data: str | Path | None) -> Task:
    train, test = (
        [
            problem(row["question"], row["answer"], index)
            for index, row in parse_jsonl(load_file(file, data), file.path, {"question": (str,), "answer": (str,)})
        ]
        for file in (TRAIN, TEST)
    )
    return Task("gsm8k", train, test, INSTRUCTION, GRADE_SCHOOL)

"""SVAMP: 1,000 one-step word problems with varied questions (Patel et al. 2021, arXiv 2103.07191; MIT)."""

from pathlib import Path

from jaxreason.tasks.examples import GRADE_SCHOOL
from jaxreason.tasks.files import File, load_file, number_text, parse_jsonl, split_by_hash
from jaxreason.tasks.gsm8k import INSTRUCTION
from jaxreason.tasks.problem import Problem, Task

FILE = File(
    path="svamp/test.jsonl",
    url="https://raw.githubusercontent.com/ZubinGou/math-evaluation-harness/"
    "db77bc6bb2a17c90ed2d63e88ebd8c40a82858c5/data/svamp/test.jsonl",
    sha256="d0826ff1264f3860e46fc4e71db9e31d2d188960db87090e22677f9493e67a0d",
)


def sentence(body: str) -> str:
    """Adds the full stop that a third of the bodies lack."""
    body = body.strip()
    return body if body.endswith((".", "?", "!")) else body + "."


def load(data: str | Path | None) -> Task:
    fields = {"Body": (str,), "Question": (str,), "Answer": (int, float)}
    problems = [
        Problem(
            question=f"{sentence(row['Body'])} {row['Question'].strip()}",
            answer=number_text(row["Answer"]),
            solution="",
            index=index,
        )
        for index, row in parse_jsonl(load_file(FILE, data), FILE.path, fields)
    ]
    return Task("svamp", *split_by_hash(problems), INSTRUCTION, GRADE_SCHOOL)

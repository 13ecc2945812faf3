"""MAWPS: 2,065 word problems of one or two steps (Koncel-Kedziorski et al. 2016, NAACL N16-1136; MIT)."""

from fractions import Fraction
from pathlib import Path

from jaxreason.tasks.examples import GRADE_SCHOOL
from jaxreason.tasks.files import File, load_file, number_text, parse_jsonl, split_by_hash
from jaxreason.tasks.gsm8k import INSTRUCTION
from jaxreason.tasks.problem import Problem, Task

FILE = File(
    path="mawps/test.jsonl",
    url="https://raw.githubusercontent.com/ZubinGou/math-evaluation-harness/"
    "db77bc6bb2a17c90ed2d63e88ebd8c40a82858c5/data/mawps/test.jsonl",
    sha256="00ffe31161be8623a3d36741830edbba87a3aee0109f693810fe40b9d5d91b8b",
)


def answer_text(target: int | float) -> str:
    """The gold answer as text. The file rounds 2/3 to 0.6666666667; grading is exact, so the fraction is restored."""
    text = number_text(target)
    simple = Fraction(text).limit_denominator(100)
    rounded = len(text.partition(".")[2]) >= 5 and abs(simple - Fraction(text)) < Fraction(1, 10**5)
    return str(simple) if rounded else text


def load(data: str | Path | None) -> Task:
    problems = [
        Problem(question=row["input"].strip(), answer=answer_text(row["target"]), solution="", index=index)
        for index, row in parse_jsonl(load_file(FILE, data), FILE.path, {"input": (str,), "target": (int, float)})
    ]
    return Task("mawps", *split_by_hash(problems), INSTRUCTION, GRADE_SCHOOL)

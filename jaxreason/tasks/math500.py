"""MATH-500: 500 competition problems with LaTeX answers (Lightman et al. 2023, arXiv 2305.20050; MIT)."""

from pathlib import Path

from jaxreason.tasks.files import File, load_file, parse_jsonl, split_by_hash
from jaxreason.tasks.problem import Problem, Task

INSTRUCTION = r"Think step by step, then end with the final answer in \boxed{}."

FILE = File(
    path="math500/test.jsonl",
    # media, not raw: the file is in Git LFS, and raw serves only the LFS pointer
    url="https://media.githubusercontent.com/media/openai/prm800k/7ecc794703b2877f63226f2477a49b34f9b25163/"
    "prm800k/math_splits/test.jsonl",
    sha256="35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
)


def load(data: str | Path | None) -> Task:
    """All 500 problems, split by hash; published results on MATH-500 use `train + test` as the test set."""
    fields = {"problem": (str,), "solution": (str,), "answer": (str,)}
    problems = [
        Problem(question=row["problem"], answer=row["answer"], solution=row["solution"], index=index)
        for index, row in parse_jsonl(load_file(FILE, data), FILE.path, fields)
    ]
    return Task("math500", *split_by_hash(problems), INSTRUCTION)

"""Problems to solve: generated, from published data sets, or from your own JSONL file. Pure Python."""

from jaxreason.tasks.files import parse_jsonl, read_bytes
from jaxreason.tasks.problem import Problem, Task, messages, validation_split
from jaxreason.tasks.registry import TASKS, load_task

__all__ = ["TASKS", "Problem", "Task", "load_task", "messages", "parse_jsonl", "read_bytes", "validation_split"]

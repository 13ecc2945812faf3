"""The edge of the library: command line, run folder."""

from jaxreason.runs.cli import check_divides, check_limits, choose, main, parse, shrink
from jaxreason.runs.conclude import conclude
from jaxreason.runs.display import show_progress
from jaxreason.runs.folder import RunFolder, write_json

__all__ = [
    "RunFolder",
    "check_divides",
    "check_limits",
    "choose",
    "conclude",
    "main",
    "parse",
    "show_progress",
    "shrink",
    "write_json",
]

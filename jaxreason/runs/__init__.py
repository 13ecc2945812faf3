"""The edge of the library: command line, run folder."""

from jaxreason.runs.cli import check_limits, choose, filled, main, parse, presets
from jaxreason.runs.conclude import conclude
from jaxreason.runs.display import evaluate_sets, show_progress
from jaxreason.runs.folder import RunFolder, read_rows, write_csv, write_json, write_text
from jaxreason.runs.notebook import kept, runtime
from jaxreason.runs.study import REAL, SMOKE, Study, Tuning
from jaxreason.runs.train import train

__all__ = [
    "REAL",
    "SMOKE",
    "RunFolder",
    "Study",
    "Tuning",
    "check_limits",
    "choose",
    "conclude",
    "evaluate_sets",
    "filled",
    "kept",
    "main",
    "parse",
    "presets",
    "read_rows",
    "runtime",
    "show_progress",
    "train",
    "write_csv",
    "write_json",
    "write_text",
]

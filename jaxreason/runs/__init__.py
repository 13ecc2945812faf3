"""The edge of the library: command line, run folder."""

from jaxreason.runs.cli import check_limits, choose, main, parse, presets, with_defaults
from jaxreason.runs.conclude import conclude
from jaxreason.runs.display import evaluate_sets, show_progress
from jaxreason.runs.folder import RunFolder, read_rows, write_csv, write_json, write_text
from jaxreason.runs.notebook import kept, runtime
from jaxreason.runs.study import PRETRAINED_DEFAULTS, SMOKE_DEFAULTS, Study, Tuning
from jaxreason.runs.train import train

__all__ = [
    "PRETRAINED_DEFAULTS",
    "SMOKE_DEFAULTS",
    "RunFolder",
    "Study",
    "Tuning",
    "check_limits",
    "choose",
    "conclude",
    "evaluate_sets",
    "kept",
    "main",
    "parse",
    "presets",
    "read_rows",
    "runtime",
    "show_progress",
    "train",
    "with_defaults",
    "write_csv",
    "write_json",
    "write_text",
]

"""Experiments as a person runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

AS_SCRIPT = """
import os, runpy, sys
sys.argv.pop(0)
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
LISTEN = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background test run ignores Ctrl-C
{AS_SCRIPT}
"""


class Experiment:
    """Runs an experiment file as a person does, in a process of its own."""

    def __init__(self, script: str, folder: Path, *flags: str):
        self.folder = folder
        self.command = [sys.executable, str(ROOT / "experiments" / script), "--out", str(folder), *flags]
        self.environment = {k: v for k, v in os.environ.items() if k != "JAXREASON_DATA"}
        self.environment |= {"COLUMNS": "200", "XLA_FLAGS": "--xla_backend_optimization_level=0"}  # compiling dominates

    def start(self) -> subprocess.Popen:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", LISTEN, *self.command[1:]]
        return subprocess.Popen(command, env=self.environment, cwd=self.folder.parent, **pipes)

    def run(self, *flags: str) -> subprocess.CompletedProcess:
        command = [*self.command, *flags]
        return subprocess.run(command, env=self.environment, cwd=self.folder.parent, capture_output=True, text=True)


def coloured_pixels(picture: Path) -> int:
    """What is drawn of curves and bars: text, axes and grids are grey."""
    from matplotlib.image import imread

    rgb = imread(picture)[..., :3]
    return int((rgb.max(-1) - rgb.min(-1) > 0.2).sum())


def rows(file: Path) -> list[dict]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def timeless(metrics: list[dict]) -> list[dict]:
    """Without what a clock measured."""
    return [{k: v for k, v in row.items() if "seconds" not in k and k != "tokens_per_second"} for row in metrics]

"""Experiments as a person runs them."""

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
        self.environment = {k: v for k, v in os.environ.items() if k not in ("JAXREASON_DATA", "XLA_FLAGS")}
        self.environment |= {"COLUMNS": "200", "JAX_COMPILATION_CACHE_DIR": str(folder.parents[1] / "compiled")}
        self.environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def start(self) -> subprocess.Popen:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", LISTEN, *self.command[1:]]
        return subprocess.Popen(command, env=self.environment, cwd=self.folder.parent, **pipes)

    def run(self, *more: str) -> subprocess.CompletedProcess:
        command = [*self.command, *more]
        return subprocess.run(command, env=self.environment, cwd=self.folder.parent, capture_output=True, text=True)

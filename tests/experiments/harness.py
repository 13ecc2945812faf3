"""Experiments as a person runs them."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Experiment:
    """Runs an experiment file as a person does, in a process of its own."""

    def __init__(self, script: str, folder: Path, *flags: str):
        self.folder = folder
        self.command = [sys.executable, str(ROOT / "experiments" / script), "--out", str(folder), *flags]
        self.environment = {k: v for k, v in os.environ.items() if k not in ("JAXREASON_DATA", "XLA_FLAGS")}
        self.environment |= {"COLUMNS": "200", "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled")}
        self.environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def start(self) -> subprocess.Popen:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        # A test run started in the background ignores Ctrl-C, and its children would inherit that.
        listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(self.command, env=self.environment, cwd=self.folder.parent, preexec_fn=listen, **pipes)

    def run(self, *more: str) -> subprocess.CompletedProcess:
        command = [*self.command, *more]
        return subprocess.run(command, env=self.environment, cwd=self.folder.parent, capture_output=True, text=True)

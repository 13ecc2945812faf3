"""A model and a task of the smallest size that runs every part of an experiment."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers

from jaxreason.models.load import save_folder
from jaxreason.text.tokenizer import HuggingFace, Tokenizer
from tests.models.families import TINY, tiny_params

ROOT = Path(__file__).parents[2]
CHARACTERS = "0123456789# \n.+?abcdefghiklmno"


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A folder with a random one-layer model that reads and writes single characters, mostly digits."""
    folder = tmp_path_factory.mktemp("models") / "random"
    vocabulary = {"<eos>": 0, **{c: i + 1 for i, c in enumerate(CHARACTERS)}}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="a"))
    tokenizer = Tokenizer(HuggingFace(backend), {"eos_token": "<eos>"}, add_bos=False, stop_ids=(0,))
    config = replace(TINY["llama"], layers=1, context=512, vocab=len(vocabulary))
    save_folder(folder, tiny_params(config, seed=0), config, tokenizer)
    return folder


@pytest.fixture(scope="session")
def task(tmp_path_factory) -> Path:
    """Sums below twenty, as anyone's own `.jsonl` file."""
    file = tmp_path_factory.mktemp("tasks") / "sums.jsonl"
    rows = [{"question": f"{a}+{b}?", "answer": f"#### {a + b}"} for a in range(8) for b in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


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
        return subprocess.Popen(self.command, env=self.environment, cwd=self.folder.parent, **pipes)

    def run(self, *more: str) -> subprocess.CompletedProcess:
        command = [*self.command, *more]
        return subprocess.run(command, env=self.environment, cwd=self.folder.parent, capture_output=True, text=True)

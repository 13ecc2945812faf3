"""Shape annotations are verified in every test: the import hook below checks each annotated call."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
import tokenizers

ROOT = Path(__file__).parents[1]

# Compiling takes most of the suite's time; level 0 halves it and computes the same functions. What one test compiled
# serves the others, those in other processes and the experiments that they start, too.
# Eight devices are there for the tests of meshes; everything else runs on the first.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8")

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "jaxreason-tests-compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # [G] never joins [P G] by accident

# `tasks` has no arrays, and draws tens of thousands of problems.
parts = {each.stem for each in (ROOT / "jaxreason").iterdir()} - {"__init__", "tasks"}
hook = jaxtyping.install_import_hook([f"jaxreason.{part}" for part in parts], "beartype.beartype")

from jaxreason.text.tokenizer import HuggingFace, Tokenizer  # noqa: E402
from jaxreason.weights.load import save_folder  # noqa: E402 -- after the hook
from tests.models.families import TINY, tiny_params  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also run what is marked slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--all") and not config.getoption("-m"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real problem sets, which the repository does not contain."""
    folder = os.environ.get("JAXREASON_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("JAXREASON_DATA names no folder with the problem sets")
    return Path(folder)


CHARACTERS = "0123456789# \n.+?abcdefghiklmno"


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A folder with a random one-layer model that reads and writes single characters, mostly digits."""
    folder = tmp_path_factory.mktemp("models") / "random"
    vocabulary = {"<eos>": 0, **{c: i + 1 for i, c in enumerate(CHARACTERS)}}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="a"))
    tokenizer = Tokenizer(HuggingFace(backend), {"eos_token": "<eos>"}, add_bos=False, stop_ids=(0,))
    config = replace(TINY["llama"], layers=1, max_seq_len=512, vocab=len(vocabulary))
    save_folder(folder, tiny_params(config, seed=0), config, tokenizer)
    return folder


@pytest.fixture(scope="session")
def task(tmp_path_factory) -> Path:
    """Sums below twenty, as anyone's own `.jsonl` file."""
    file = tmp_path_factory.mktemp("tasks") / "sums.jsonl"
    rows = [{"question": f"{a}+{b}?", "answer": f"#### {a + b}"} for a in range(8) for b in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file

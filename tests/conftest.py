"""Shape annotations are verified in every test: the import hook below checks each annotated call."""

import os
from pathlib import Path

import jaxtyping
import pytest

# Compiling takes most of the suite's time; level 0 halves it and computes the same functions.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

hook = jaxtyping.install_import_hook("jaxreason", "beartype.beartype")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real problem sets, which the repository does not contain."""
    folder = os.environ.get("JAXREASON_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("JAXREASON_DATA names no folder with the problem sets")
    return Path(folder)

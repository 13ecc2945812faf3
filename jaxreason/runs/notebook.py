"""For notebooks: the devices they run on, and a run folder that outlives a disconnect."""

from pathlib import Path
from typing import Any

import jax

from jaxreason.cache import enable_compilation_cache
from jaxreason.runs.folder import DRIVE, RunFolder


def runtime() -> str:
    """The devices in words, for the first cell."""
    devices = jax.devices()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit", 0)
    memory = f" of {limit / 2**30:.0f} GiB" if limit else ""
    return f"{len(devices)} x {devices[0].device_kind}{memory}, jax {jax.__version__}"


def notebook_folder(name: str) -> Path:
    """The folder that outlives a disconnect: on Drive if that is mounted, else beside the notebook."""
    return (DRIVE if DRIVE.is_dir() else Path("runs")) / "jaxreason" / name


def notebook_run(name: str, settings: dict[str, Any]) -> RunFolder:
    """A folder for results: run all cells again after a disconnect, and what is in it is not computed again. Other
    settings need another name. Compiled programs are kept on disk."""
    enable_compilation_cache()
    return RunFolder(notebook_folder(name), settings)

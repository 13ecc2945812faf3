"""Where downloaded files and compiled programs are kept."""

import os
from pathlib import Path

import jax


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/jaxreason`, by default `~/.cache/jaxreason`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxreason"


def enable_compilation_cache() -> None:
    """Keeps what XLA compiles on disk, for the next process; JAX's own environment variables win."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

"""Files that are kept between runs: downloads, joined models, compiled functions."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/jaxreason`, by default `~/.cache/jaxreason`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxreason"


def enable_compilation_cache() -> None:
    """Turns on JAX's persistent compilation cache, in `cache_folder()`, so that later processes compile nothing again.

    A cache that was configured by JAX's own settings is left alone.
    """
    import jax  # here, because problems and text need this module but not JAX

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

"""A dataclass becomes the command line; what goes wrong becomes one line and a non-zero exit."""

import math
import os
import sys
from _thread import interrupt_main
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from threading import Timer
from typing import Any, NoReturn, TypeVar

import jax
import simple_parsing

from jaxreason.cache import cache_folder
from jaxreason.distributed.multihost import abort, check_same_settings, initialize_hosts, shutdown
from jaxreason.errors import InputError, Stopped
from jaxreason.weights import BUNDLED

Config = TypeVar("Config")
Option = TypeVar("Option")
Presets = Callable[[Any], Mapping[str, Any]]
"""Of a configuration as it was given, other defaults for what was not."""
NONE: Mapping[str, Any] = {}


class _Parser(simple_parsing.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def parse(
    config: type[Config],
    description: str | None = None,
    argv: list[str] | None = None,
    presets: Presets | None = None,
) -> Config:
    """Flags from the fields of `config`: their names, defaults, types and the comments beside them."""
    given = _parse(config(), description, argv)
    return _parse(replace(config(), **presets(given)), description, argv) if presets else given


def _parse(defaults: Config, description: str | None, argv: list[str] | None) -> Config:
    parser = _Parser(
        description=description,
        allow_abbrev=False,
        add_option_string_dash_variants=simple_parsing.DashVariant.DASH,
    )
    kind = type(defaults)
    if (kind.__doc__ or "").startswith(f"{kind.__name__}("):  # the signature, which dataclass writes where nothing is
        kind.__doc__ = "what can be set"
    parser.add_arguments(kind, dest="config", default=defaults)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        closest = get_close_matches(unknown[0].split("=")[0], flags, n=1)
        parser.error(f"unknown argument {unknown[0]!r}" + "".join(f", the closest flag is {flag}" for flag in closest))
    return args.config


def presets(*, real: Mapping[str, Any] = NONE, smoke: Mapping[str, Any] = NONE) -> Presets:
    """Other defaults: `real` for a `model` that does not ship with the package, `smoke` where that flag is set."""

    def chosen(config: Any) -> dict[str, Any]:
        return {**(real if real and config.model not in BUNDLED else NONE), **(smoke if config.smoke else NONE)}

    return chosen


def with_defaults(config: type[Config], presets: Presets, **given: Any) -> Config:
    """`config(**given)` with the defaults that `presets` has for the rest, as on the command line."""
    return config(**{**presets(config(**given)), **given})


def choose(flag: str, name: str, options: Mapping[str, Option]) -> Option:
    """The option of that name, or an error that lists them."""
    if name not in options:
        closest = "".join(f", the closest is {option!r}" for option in get_close_matches(name, options, n=1))
        raise InputError(f"--{flag} {name!r} is unknown{closest}; choose {', '.join(options)}")
    return options[name]


def check_limits(config: Any, limits: Mapping[str, tuple[float | int, float | int]]) -> None:
    """Refuses a field of `config` that is not a finite number from the first to the second limit, both included."""
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not (math.isfinite(value) and low <= value <= high):
            allowed = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
            raise InputError(f"--{name.replace('_', '-')} {value} is out of range: give a number {allowed}")


def main(
    run: Callable[[Any], Any],
    config: type[Config],
    description: str | None = None,
    presets: Presets | None = None,
) -> NoReturn:
    """Parses the command line, calls `run`, and exits: 0 done, 2 wrong input, 1 trouble with files, numbers or
    another host, 130 Ctrl-C, 143 SIGTERM."""
    sys.unraisablehook = _interrupt_again
    try:
        asked = parse(config, description, presets=presets)
        remember_compiled()
        initialize_hosts(getattr(asked, "hosts", ""))
        check_same_settings({name: value for name, value in vars(asked).items() if name != "hosts"})
        run(asked)
        shutdown()
    except InputError as error:
        _leave(2, f"error: {error}")
    except Stopped as stopped:
        shutdown()
        _leave(stopped.status, str(stopped))
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        abort(f"another process is gone ({' '.join(str(error).split())[:200]})")
    except OSError as error:
        _leave(1, f"error: {error.strerror or error}: {error.filename or ''}; free or fix it and run the same command")
    except KeyboardInterrupt:
        print("stopped: run the same command to go on from the last checkpoint, if any", file=sys.stderr, flush=True)
        os._exit(130)  # at once: threads of a save that was interrupted would print over this line
    sys.exit(0)


def _interrupt_again(abort: Any) -> None:
    """Ctrl-C within a callback of the garbage collector (JAX has one) would be printed and forgotten."""
    if issubclass(abort.exc_type, KeyboardInterrupt):
        Timer(0.1, interrupt_main).start()  # now, it would land in here
    else:
        sys.__unraisablehook__(abort)


def remember_compiled() -> None:
    """What XLA compiles is kept on disk, so that the next run starts at once; JAX's own settings come first."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _leave(status: int, message: str) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(status)

"""A dataclass becomes the command line; what goes wrong becomes one line and a non-zero exit."""

import json
import os
import re
import sys
from _thread import interrupt_main
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from threading import Timer
from types import ModuleType
from typing import Any, NoReturn

import jax
import simple_parsing

from jaxreason.cache import enable_compilation_cache
from jaxreason.distributed.multihost import abort, check_same_settings, initialize_hosts, shutdown
from jaxreason.errors import InputError, Stopped
from jaxreason.runs.config import Config, Defaults, flatten, set_flags, with_defaults


class _Parser(simple_parsing.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")

    def format_help(self) -> str:
        """Groups by their field's name, `sampling:`, instead of `SamplingFlags ['config.sampling']:`."""
        return re.sub(
            r"^\w+ \['config\.?(\w*)'\]:$", lambda m: f"{m[1] or 'flags'}:", super().format_help(), flags=re.M
        )


def parse(
    config: type[Config],
    description: str | None = None,
    argv: list[str] | None = None,
    defaults: Defaults | None = None,
) -> Config:
    """Flags from the fields of `config` and of its groups: their names, defaults, types and the comments beside
    them."""
    given = _parse(config(), description, argv)
    return _parse(set_flags(config(), **defaults(given)), description, argv) if defaults else given


def _parse(defaults: Config, description: str | None, argv: list[str] | None) -> Config:
    parser = _Parser(
        description=description, allow_abbrev=False, add_option_string_dash_variants=simple_parsing.DashVariant.DASH
    )
    kind = type(defaults)
    if (kind.__doc__ or "").startswith(f"{kind.__name__}("):  # the signature that dataclass writes by itself
        kind.__doc__ = "flags of this program"
    parser.add_arguments(kind, dest="config", default=defaults)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        closest = get_close_matches(unknown[0].split("=")[0], flags, n=1)
        parser.error(f"unknown argument {unknown[0]!r}" + "".join(f", the closest flag is {flag}" for flag in closest))
    return args.config


def main(
    run: Callable[[Any], Any], config: type[Config], description: str | None = None, defaults: Defaults | None = None
) -> NoReturn:
    """Parses the command line, calls `run`, and exits: 0 done, 2 bad input, 1 trouble with files, numbers or another
    process, 130 Ctrl-C, 143 SIGTERM."""
    sys.unraisablehook = _interrupt_again
    try:
        cfg = parse(config, description, defaults=defaults)
        enable_compilation_cache()
        flags = flatten(cfg)
        initialize_hosts(flags.pop("hosts", ""))
        check_same_settings(flags)
        run(cfg)
        shutdown()
    except InputError as error:
        _exit(2, f"error: {error}")
    except Stopped as stopped:
        shutdown()
        _exit(stopped.status, str(stopped))
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        abort(f"another process is gone ({' '.join(str(error).split())[:200]})")
    except OSError as error:
        _exit(1, f"error: {error.strerror or error}: {error.filename or ''}; free or fix it and run the same command")
    except KeyboardInterrupt:
        print("stopped: run the same command to go on from the last checkpoint, if any", file=sys.stderr, flush=True)
        os._exit(130)  # at once: threads of an interrupted save would print over this line
    sys.exit(0)


def run_experiment(experiment: ModuleType, out: Path, **flags: Any) -> dict[str, Any]:
    """The summary in `out` of another experiment (a module with `Config`, `flag_defaults` and `main`), which is run
    first, with these flags, unless it is finished."""
    summary = out / "summary.json"
    if not summary.exists():
        experiment.main(with_defaults(experiment.Config, experiment.flag_defaults, out=str(out), **flags))
    return json.loads(summary.read_text())


def _interrupt_again(unraisable: Any) -> None:
    """Ctrl-C within a callback of the garbage collector (JAX has one) would be printed and forgotten."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        Timer(0.1, interrupt_main).start()  # now, it would land in here
    else:
        sys.__unraisablehook__(unraisable)


def _exit(status: int, message: str) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(status)

"""The folder of a run: its configuration and its log, in files that outlive a kill.

.lock (its writer) · config.json · metrics.jsonl (a flat object a step) · samples.jsonl · events.* (TensorBoard) ·
checkpoints/ · *.png · summary.json. Every line is flushed when written; a resumed run drops the lines after its
checkpoint and writes them again, so the files of an interrupted run equal those of an uninterrupted one.
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from socket import gethostname
from typing import Any

from filelock import SoftFileLock, Timeout
from tensorboardX import SummaryWriter

from jaxreason.distributed.multihost import broadcast_from_main, is_main_process
from jaxreason.errors import InputError

EXTENDABLE = {"steps", "token_budget", "data", "out", "export", "mesh", "hosts", "profile"}
"""Settings that may differ when a run is resumed. They change how far it goes and where its files and arrays are, but
no number beyond the rounding of another order of additions."""
RECORDED = {"recipe"}
"""Entries of config.json that follow from its settings: `RunFolder.record`."""
DRIVE = Path("/content/drive/MyDrive")
"""Google Drive in Colab, once it is mounted."""


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: written beside and renamed."""
    write_text(path, json.dumps(_finite(value), indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line a row, of all names that any of them has; whole or not at all."""
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, lines.getvalue())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); delete it or choose another --out") from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror}); mend that and run the same command to go on")


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: they become null."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunFolder:
    def __init__(self, path: Path, config: dict[str, Any]):
        """Opens `path` for `config`. A folder made with another config (but see `EXTENDABLE`) is refused, and so is one
        that holds something else, or that a living process writes to. Only process 0 does file I/O; it broadcasts the
        result."""
        self.path, self.config = path, config
        self._lock = SoftFileLock(path / ".lock", timeout=0, thread_local=False, is_singleton=True)
        self._new = broadcast_from_main(self._open)
        self._events: SummaryWriter | None = None

    def _open(self) -> bool:
        """Whether the folder was made now."""
        path, config, made_with = self.path, self.config, self.path / "config.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
        except OSError as error:
            raise _unwritable(path, error) from error
        new = not made_with.exists()
        before = config if new else _read_json(made_with)
        if foreign and (new or not (isinstance(before, dict) and before.keys() & config.keys())):
            raise InputError(f"{path} is not a folder of such a run, it holds {foreign[0]!r}: choose another --out")
        changed = sorted(n for n in before.keys() | config.keys() if before.get(n) != config.get(n))
        if changed := [name for name in changed if name not in EXTENDABLE | RECORDED]:
            differences = ", ".join(f"{name} = {before.get(name)!r}, not {config.get(name)!r}" for name in changed)
            raise InputError(f"{path} holds a run with {differences}: choose another --out or the same settings")
        self._acquire_lock()
        if new:
            write_json(made_with, config)
        return new

    def _acquire_lock(self) -> None:
        """Until `close`; the lock of a dead process on this machine is taken over. So is any other machine's on Drive,
        where a lost runtime leaves it behind and never returns under its name."""
        file = self.path / ".lock"
        if DRIVE in self.path.parents and file.exists() and file.read_text().splitlines()[1:2] != [gethostname()]:
            self._lock.break_lock()
        try:
            self._lock.acquire()
        except Timeout as error:
            process, host, *_ = (*file.read_text().splitlines(), "?", "?")
            remedy = "wait for it" if host == gethostname() else f"if it is gone, delete {file}"
            raise InputError(
                f"{self.path} is written to by process {process} on {host}: {remedy}, or choose another --out"
            ) from error
        except OSError as error:
            raise _unwritable(file, error) from error

    def record(self, name: str, value: Any) -> None:
        """Adds an entry of `RECORDED` to config.json; refused where the folder was made with another value."""
        broadcast_from_main(lambda: self._record(name, value))
        self.config = self.config | {name: value}

    def _record(self, name: str, value: Any) -> None:
        before = _read_json(self.path / "config.json").get(name, value)
        if before != value:
            raise InputError(f"{self.path} holds a run with {name} = {before!r}, not {value!r}: choose another --out")
        write_json(self.path / "config.json", self.config | {name: value})

    def discard_if_untouched(self) -> None:
        """Closes the folder; removes it if it was made now and holds nothing but its configuration."""
        self.close()
        if self._new and is_main_process() and [p.name for p in self.path.iterdir()] == ["config.json"]:
            (self.path / "config.json").unlink()
            self.path.rmdir()

    def resume(self, step: int) -> None:
        """Drops what was logged after `step`, the step of the restored checkpoint; refuses a step beyond the config's
        `steps`."""
        broadcast_from_main(lambda: self._resume(step))

    def _resume(self, step: int) -> None:
        if step > self.config.get("steps", step):
            raise InputError(
                f"{self.path} is at step {step} already, beyond --steps {self.config['steps']}: "
                f"give at least {step}, or another --out"
            )
        write_json(self.path / "config.json", self.config)
        for name in ("metrics.jsonl", "samples.jsonl"):
            file = self.path / name
            lines = file.read_bytes().split(b"\n") if file.exists() else []
            write_text(file, "".join(f"{line.decode()}\n" for line in lines if _step(line) <= step))
        self._events = SummaryWriter(str(self.path), purge_step=step + 1, flush_secs=10)

    def log(self, metrics: Mapping[str, Any], samples: Sequence[dict] = ()) -> None:
        self.append("samples.jsonl", samples)
        self.append("metrics.jsonl", [metrics])
        for name, value in metrics.items():
            if self._events is not None and name != "step":
                self._events.add_scalar(name, value, metrics["step"])

    def append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if not is_main_process():
            return
        try:
            with open(self.path / name, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(_finite(row)) + "\n" for row in rows)
        except OSError as error:
            raise _unwritable(self.path / name, error) from error

    def metrics(self) -> list[dict[str, float | int]]:
        return broadcast_from_main(lambda: read_rows(self.path / "metrics.jsonl"))

    def load_or_compute(self, name: str, compute: Callable[[], Any]) -> Any:
        """The JSON value in file `name`, computed and written once."""
        file = self.path / name
        if not broadcast_from_main(file.exists):
            value = compute()
            broadcast_from_main(lambda: write_json(file, value))
        return broadcast_from_main(lambda: _read_json(file))

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
        self._lock.release()


def read_rows(file: Path) -> list[dict[str, Any]]:
    """One JSON object a line."""
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def _step(line: bytes) -> float:
    """The step of a log line; a line torn by a kill counts as later than any checkpoint."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")

"""The folder of a run: what was asked, what happened, in files that outlive a kill.

config.json · metrics.jsonl (a flat object a step) · samples.jsonl · events.* (TensorBoard) · checkpoints/ ·
*.png · summary.json. Every line is flushed when written; a resumed run drops the lines after its checkpoint and
writes them again, so the files of an interrupted run equal those of an uninterrupted one.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from jaxreason.errors import InputError


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: written beside and renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    os.replace(temporary, path)


EXTENDABLE = ("steps", "data", "out", "export")


class RunFolder:
    def __init__(
        self, path: Path, config: dict[str, Any], *, extendable: Iterable[str] = ("steps", "data", "out", "export")
    ):
        """Opens `path` for `config`; a folder made with another config is refused, apart from `extendable` fields,
        which change how far a run goes or where its files are, but no number in it."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        made_with = path / "config.json"
        if made_with.exists():
            before = json.loads(made_with.read_text())
            for name in (before.keys() | config.keys()) - set(extendable):
                if before.get(name) != config.get(name):
                    raise InputError(
                        f"{path} holds a run with {name} = {before.get(name)!r}, not {config.get(name)!r}: "
                        f"choose another --out, or --{name.replace('_', '-')} {before.get(name)} to go on with it"
                    )
        write_json(made_with, config)
        self._events: SummaryWriter | None = None

    def resume(self, step: int) -> None:
        """Drops what was logged after `step`, the step of the checkpoint that training goes on from."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            file = self.path / name
            lines = file.read_text().splitlines() if file.exists() else []
            kept = [line for line in lines if _step(line) <= step]
            temporary = file.with_name(f".{name}.tmp")
            temporary.write_text("".join(f"{line}\n" for line in kept))
            os.replace(temporary, file)
        self._events = SummaryWriter(str(self.path), purge_step=step + 1, flush_secs=10)

    def log(self, metrics: dict[str, float], samples: list[dict]) -> None:
        for name, rows in (("samples.jsonl", samples), ("metrics.jsonl", [metrics])):
            with open(self.path / name, "a") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if self._events is not None:
            for name, value in metrics.items():
                if name != "step":
                    self._events.add_scalar(name, value, metrics["step"])

    def metrics(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    def remember(self, name: str, compute) -> Any:
        """The JSON value in file `name`, computed and written once."""
        file = self.path / name
        if not file.exists():
            write_json(file, compute())
        return json.loads(file.read_text())

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def _step(line: str) -> float:
    """The step of a log line; a line torn by a kill counts as later than any checkpoint."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return float("inf")

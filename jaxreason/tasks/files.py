"""Problem files: read from a folder or downloaded once, verified by checksum, parsed as JSONL, split by hash."""

import hashlib
import http.client
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxreason.cache import cache_folder
from jaxreason.errors import InputError
from jaxreason.tasks.problem import Problem

TIMEOUT = 30  # seconds without data
MAX_BYTES = 64 << 20  # the largest published file has 4 MB


class File(NamedTuple):
    """A published file: path relative to the data folder, URL at a fixed commit, checksum."""

    path: str
    url: str
    sha256: str


def load_file(file: File, data: str | Path | None) -> bytes:
    """The verified bytes of `data`/`file.path` if that exists, else of the cached copy, downloaded when missing."""
    if data is not None:
        if not Path(data).is_dir():
            raise InputError(f"data folder {data} is not a folder; pass --data FOLDER containing {file.path}")
        local = Path(data) / file.path
        if local.is_file():
            return check_sha256(read_bytes(local), file, f"{local}", f"replace it with {file.url}")
    cached = cache_folder() / "data" / file.path
    if not cached.is_file():
        download(file, cached)
    return check_sha256(read_bytes(cached), file, f"{cached}", "delete it to download it again")


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the name and permissions") from error


def check_sha256(raw: bytes, file: File, where: str, remedy: str) -> bytes:
    actual = hashlib.sha256(raw).hexdigest()
    if actual != file.sha256:
        raise InputError(f"{where} has sha256 {actual}, expected {file.sha256}; {remedy}")
    return raw


def download(file: File, target: Path) -> None:
    """Downloads and verifies in a temporary folder, then renames: `target` is never incomplete."""
    alternative = f"or pass --data FOLDER containing {file.path}"
    try:
        with urllib.request.urlopen(file.url, timeout=TIMEOUT) as response:
            raw = response.read(MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{file.url} cannot be downloaded ({error}); check the network, {alternative}") from None
    check_sha256(raw, file, file.url, f"try again later, {alternative}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            partial = Path(scratch) / target.name
            partial.write_bytes(raw)
            os.replace(partial, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}); make it writable, {alternative}") from error


def parse_jsonl(raw: bytes, name: str, fields: dict[str, tuple[type, ...]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields `(line index, object)` of each line that is not blank; each object has all `fields`, of their types."""
    for index, line in enumerate(raw.split(b"\n")):
        if not line.strip():
            continue
        where = f"{name} line {index + 1}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # also invalid UTF-8, and integers with too many digits
            raise InputError(f"{where} is not JSON: {line[:40]!r}; write one JSON object per line") from None
        if not isinstance(row, dict):
            raise InputError(f"{where} is not a JSON object: {line[:40]!r}; write an object with {', '.join(fields)}")
        for field, types in fields.items():
            if field not in row:
                raise InputError(f"{where} lacks the field {field!r}; each line needs {', '.join(fields)}")
            if type(row[field]) not in types:  # not isinstance: True is an int
                expected = " or ".join(t.__name__ for t in types)
                raise InputError(f"{where} has {field!r} = {json.dumps(row[field])[:40]}; it must be a {expected}")
        yield index, row


def number_text(number: int | float) -> str:
    """Formats `145.0` as `145` and `11.5` as `11.5`."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def split_by_hash(problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Splits into `(train, test)`, about 80/20, by the sha256 of the question: independent of the file's order.

    Both are sorted by that hash, because files are sorted by kind of problem: the first n are a random sample.
    """

    def digest(problem: Problem) -> bytes:
        return hashlib.sha256(problem.question.encode("utf-8", "surrogatepass")).digest()

    ordered = sorted(problems, key=digest)
    train = [problem for problem in ordered if digest(problem)[0] >= 51]  # 51/256 is 0.199
    return train, [problem for problem in ordered if digest(problem)[0] < 51]

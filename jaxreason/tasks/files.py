"""Problem files: found in a folder or downloaded once, verified, read line by line, split by hash."""

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

TIMEOUT = 30  # seconds without a byte
LARGEST = 64 << 20  # bytes; the largest published file has 4 MB


class File(NamedTuple):
    """A published file: its place below a data folder, its address at a fixed commit, its checksum."""

    path: str
    url: str
    sha256: str


def content(file: File, data: str | Path | None) -> bytes:
    """The verified bytes of `data`/`file.path` if it exists, else of the cached copy, downloaded when missing."""
    if data is not None:
        if not Path(data).is_dir():
            raise InputError(f"data folder {data} is not a folder; pass --data FOLDER with {file.path} inside")
        local = Path(data) / file.path
        if local.is_file():
            return verified(read(local), file, f"{local}", f"replace it with {file.url}")
    cached = cache_folder() / "data" / file.path
    if not cached.is_file():
        download(file, cached)
    return verified(read(cached), file, f"{cached}", "delete it to download it again")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its name and permissions") from error


def verified(raw: bytes, file: File, where: str, remedy: str) -> bytes:
    found = hashlib.sha256(raw).hexdigest()
    if found != file.sha256:
        raise InputError(f"{where} has sha256 {found}, expected {file.sha256}; {remedy}")
    return raw


def download(file: File, target: Path) -> None:
    """Fetch, verify, and only then rename into place, so a broken download never looks like a file."""
    elsewhere = f"or pass --data FOLDER with {file.path} inside"
    try:
        with urllib.request.urlopen(file.url, timeout=TIMEOUT) as response:
            raw = response.read(LARGEST)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{file.url} cannot be downloaded ({error}); check the network, {elsewhere}") from None
    verified(raw, file, file.url, f"try again later, {elsewhere}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            partial = Path(scratch) / target.name
            partial.write_bytes(raw)
            os.replace(partial, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}); free the folder, {elsewhere}") from error


def rows(raw: bytes, name: str, fields: dict[str, tuple[type, ...]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """`(index, object)` of each line that is not blank; every object has `fields` with one of their types."""
    for index, line in enumerate(raw.split(b"\n")):
        if not line.strip():
            continue
        where = f"{name} line {index + 1}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # also bytes that are not UTF-8, and integers of too many digits
            raise InputError(f"{where} is not JSON: {line[:40]!r}; write one JSON object a line") from None
        if not isinstance(row, dict):
            raise InputError(f"{where} is not a JSON object: {line[:40]!r}; write one with {', '.join(fields)}")
        for field, types in fields.items():
            if field not in row:
                raise InputError(f"{where} lacks the field {field!r}; each line needs {', '.join(fields)}")
            if type(row[field]) not in types:  # not isinstance: true is no number
                expected = " or ".join(t.__name__ for t in types)
                raise InputError(f"{where} has {field!r} = {json.dumps(row[field])[:40]}; it must be a {expected}")
        yield index, row


def number_text(number: int | float) -> str:
    """`145.0` as `145`, `11.5` as `11.5`: how a person writes it."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def split_by_hash(problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """`(train, test)`, about 80/20 by the sha256 of the question: the same text is on the same side in any order.

    Both are sorted by that hash: files come sorted by kind of problem, and the first n should be a sample of all kinds.
    """

    def digest(problem: Problem) -> bytes:
        return hashlib.sha256(problem.question.encode("utf-8", "surrogatepass")).digest()

    ordered = sorted(problems, key=digest)
    train = [problem for problem in ordered if digest(problem)[0] >= 51]  # 51/256 is 0.199
    return train, [problem for problem in ordered if digest(problem)[0] < 51]

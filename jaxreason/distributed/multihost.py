"""Several processes, one on each host, that run the same program in step.

Every process makes the same decisions from the same numbers, so only arrays and grades are exchanged. Only process 0
does file I/O; it broadcasts the result.
"""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxreason.errors import InputError

HEARTBEAT_TIMEOUT = 30
"""Seconds without a heartbeat after which a process counts as dead."""


def initialize_hosts(flag: str) -> None:
    """Joins the other processes; call it before any other use of JAX.

    `flag` is `auto` on clusters that JAX detects (TPU pods, SLURM, ...), or HOST:PORT,COUNT,NUMBER with the address of
    process 0. Empty: a single process.
    """
    if not flag or jax.distributed.is_initialized():
        return
    address = count = number = None
    if flag != "auto":
        try:
            address, count, number = flag.split(",")
            count, number = int(count), int(number)
        except ValueError as error:
            raise InputError(f"--hosts {flag!r} is not HOST:PORT,COUNT,NUMBER: give that, or auto") from error
    try:
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=count,
            process_id=number,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            initialization_timeout=120,
        )
    except (RuntimeError, ValueError) as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(
            f"--hosts {flag}: the processes did not find each other ({cause}); start all of them"
        ) from error
    _connect((address or "").rpartition(":")[0] or socket.gethostname())


_CONNECTIONS: dict[int, socket.socket] = {}
"""By process number: process 0 has one to every other process, the others have one to process 0."""
_GOODBYE = b"."


def _connect(host: str) -> None:
    """Connects every process with process 0, which runs on `host`.

    A connection that breaks shows at once that a process died; collectives would hang, and JAX's heartbeats take
    `HEARTBEAT_TIMEOUT` seconds. Where no connection can be made, the heartbeats remain.
    """
    server = socket.create_server(("", 0)) if is_main_process() else None
    port = broadcast_from_main(lambda: server and server.getsockname()[1])
    try:
        if server:
            server.settimeout(HEARTBEAT_TIMEOUT)
            for _ in range(jax.process_count() - 1):
                connection, _ = server.accept()
                _CONNECTIONS[int.from_bytes(connection.recv(4))] = connection
        else:
            _CONNECTIONS[0] = socket.create_connection((host, port), timeout=HEARTBEAT_TIMEOUT)
            _CONNECTIONS[0].sendall(jax.process_index().to_bytes(4))
    except OSError:
        pass
    for number, connection in _CONNECTIONS.items():
        connection.settimeout(None)
        Thread(target=_listen, args=(number, connection), daemon=True).start()


def _listen(number: int, connection: socket.socket) -> None:
    try:
        if connection.recv(1) == _GOODBYE:
            return
    except OSError:
        pass
    abort(f"process {number} is gone")


def abort(why: str) -> NoReturn:
    """Exits this process immediately, without waiting for collectives that cannot complete any more."""
    print(f"error: {why}; run the same command on all hosts to go on from the last checkpoint", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def shutdown() -> None:
    """Tells the other processes that this one exits because its work is done."""
    for connection in _CONNECTIONS.values():
        with suppress(OSError):
            connection.sendall(_GOODBYE)


def is_main_process() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def broadcast_from_main(compute: Callable[[], Any]) -> Any:
    """The JSON value that `compute` returns on process 0, on every host. Its InputError is raised on every host."""
    if jax.process_count() == 1:
        return compute()
    message: dict[str, Any] = {}
    if is_main_process():
        try:
            message = {"value": compute()}
        except InputError as error:
            message = {"error": str(error)}
    data = np.frombuffer(json.dumps(message).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    data = multihost_utils.broadcast_one_to_all(np.resize(data, size))
    message = json.loads(np.asarray(data).tobytes())
    if "error" in message:
        raise InputError(message["error"])
    return message["value"]


def any_process(flag: bool) -> bool:
    """Whether `flag` is True on any host. A collective: every host must call it."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def owns_index(index: int) -> bool:
    """Whether this host grades completion `index` of the batch."""
    return index % jax.process_count() == jax.process_index()


def all_sum(values: np.ndarray) -> np.ndarray:
    """The sum over hosts of `values`, in which each host has zeros where another one has numbers."""
    return values if jax.process_count() == 1 else multihost_utils.process_allgather(values).sum(axis=0)


def check_same_settings(settings: dict[str, Any]) -> None:
    """Raises InputError if the code or the settings differ between hosts."""
    if jax.process_count() == 1:
        return
    digests = {"code": _code(), "settings": json.dumps(settings, sort_keys=True, default=str)}
    for name, text in digests.items():
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
        every = multihost_utils.process_allgather(digest)
        different = np.flatnonzero((every != every[0]).any(axis=1))
        if different.size:
            others = ", ".join(map(str, different))
            raise InputError(f"process {others} has other {name} than process 0: start all with the same {name}")


def _code() -> str:
    """The package's source."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return "\0".join(file.read_text(encoding="utf-8") for file in files)

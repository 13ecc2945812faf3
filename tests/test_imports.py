"""Imports point one way along the pipeline: a folder uses only what stands before it."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "jaxreason"
ORDER = ["errors", "cache", "types", "mesh", "hosts", "tasks", "models/rope", "models/attention", "models/config"]
ORDER += ["models/fuse", "models/transformer", "models/cost", "models/scoring", "models/gguf_reader", "text", "models"]
ORDER += ["sampling", "rewards", "objectives", "training", "inference", "evaluation", "patterns", "runs", "plan"]
ORDER += ["chat"]


def rank(module: str) -> int:
    """Place of `models.load` in ORDER: its own entry, else its folder's."""
    path = module.replace(".", "/")
    return ORDER.index(path) if path in ORDER else ORDER.index(path.split("/")[0])


def test_imports_follow_the_pipeline():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        own = file.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxreason."):
                used = node.module.removeprefix("jaxreason.")
                if own != "__init__" and rank(used) > rank(own):
                    wrong.append(f"{own} imports {used}")
    assert not wrong


def test_no_pickle_and_no_evaluation_of_text_anywhere():
    banned = {"pickle", "dill", "joblib", "torch", "transformers"}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not banned & {name.split(".")[0] for name in names}, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, file

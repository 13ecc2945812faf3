"""Imports point one way along the pipeline: a folder uses only what stands before it."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "jaxreason"
ORDER = ["types", "errors", "cache", "tasks", "text", "data", "distributed", "models", "weights", "sampling", "rewards"]
ORDER += ["objectives", "training", "inference", "evaluation", "analysis", "runs", "plan", "chat"]


def test_imports_follow_the_pipeline():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.startswith("jaxreason.")
                and own in ORDER
            ):
                used = node.module.split(".")[1]
                if ORDER.index(used) > ORDER.index(own):
                    wrong.append(f"{file.relative_to(PACKAGE)} imports {node.module}")
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


def test_all_is_the_public_api():
    """Whatever a package's `__init__` imports from the library or defines is public, and nothing else is."""
    for file in sorted(PACKAGE.rglob("__init__.py")):
        body = ast.parse(file.read_text()).body
        public, listed = set(), None
        for node in body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxreason"):
                public |= {name.asname or name.name for name in node.names}
            elif isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
                listed = ast.literal_eval(node.value)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                public.add(node.name)
            elif isinstance(node, ast.Assign):
                public |= {target.id for target in node.targets}
        public = {name for name in public if not name.startswith("_")}
        if public:
            assert listed is not None and public == set(listed) and len(listed) == len(public), file

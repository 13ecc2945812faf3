"""The notebooks run from the first cell to the last, on the CPU, in a minute."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "colab").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_notebook(file, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(file, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed without results
    for cell in notebook.cells:
        cell.source = cell.source.replace("steps=30, prompts_per_step=32", "steps=2, prompts_per_step=4")
        cell.source = cell.source.replace("72, 1e-4, 300", "16, 1e-4, 8")
    assert any("steps=2" in cell.source for cell in notebook.cells)
    done = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("after:" in output.get("text", "") for output in outputs)

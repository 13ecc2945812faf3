"""The notebooks run from the first cell to the last, on the CPU; a second time they go on from where they were."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COLAB = Path(__file__).parents[1] / "colab"
SMALLER = {  # than the parameters that a notebook has for a CPU
    "grpo_gsm8k.ipynb": "steps, prompts_per_step, max_tokens, eval_problems = 2, 4, 16, 8",
    "thinklogit.ipynb": "problems, samples, sweep_problems, alphas = 8, 2, 4, (1.0,)",
    "inference_scaling.ipynb": "problems, samples, budgets = 8, 4, (8, 16)",
    "pattern_selection.ipynb": (
        "examples, mixed_sft_steps, share_steps, steps, eval_problems, eval_samples = 24, 2, 2, 3, 8, 2"
    ),
}


@pytest.mark.parametrize("name", [file.name for file in sorted(COLAB.glob("*.ipynb"))])
def test_notebook(name, tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the eight devices of these tests
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(COLAB / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed without results
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == 1
    notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(SMALLER[name]))

    def done() -> str:
        resources = {"metadata": {"path": str(tmp_path)}}
        cells = nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute().cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert any("image/png" in output.get("data", {}) for output in outputs)
        return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)

    first, second = done(), done()
    assert "before:" in first and "after:" in first
    files = sorted(tmp_path.rglob("*.json"))
    assert files and all("runs/jaxreason" in str(file) for file in files)
    assert "done before" in second

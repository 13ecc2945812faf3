"""The evaluation experiment: its numbers are those of the completions it writes."""

import json

import numpy as np

from tests.experiments.harness import Experiment


def test_the_summary_follows_from_the_completions(model, task, tmp_path):
    out = tmp_path / "numbers.json"
    flags = [
        "--model",
        str(model),
        "--task",
        str(task),
        "--eval-problems",
        "6",
        "--eval-samples",
        "3",
        "--max-tokens",
        "6",
    ]
    done = Experiment("evaluate.py", out, *flags, "--temperature", "1").run()
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    printed = json.loads(done.stdout)
    assert printed.items() >= written["summary"].items() and printed["model"] == str(model)
    lenient = np.array([sample["lenient"] for sample in written["samples"]]).reshape(6, 3)
    summary = written["summary"]
    assert summary["n"] == 6 and len({sample["question"] for sample in written["samples"]}) == 6
    np.testing.assert_allclose(summary["lenient_pass@1"], lenient.mean())
    np.testing.assert_allclose(summary["lenient_se"], lenient.mean(1).std(ddof=1) / np.sqrt(6))
    np.testing.assert_allclose(summary["pass@3"], lenient.any(1).mean())


def test_equal_samples_are_refused(model, task, tmp_path):
    flags = ("--model", str(model), "--task", str(task), "--temperature", "0", "--eval-samples", "2")
    refused = Experiment("evaluate.py", tmp_path / "numbers.json", *flags).run()
    assert refused.returncode == 2
    assert refused.stderr == "error: --eval-samples 2 at --temperature 0 are all equal: give 1, or a --temperature\n"

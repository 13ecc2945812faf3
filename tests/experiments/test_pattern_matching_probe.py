"""The probe as a person runs it, on any model."""

import json

import pytest

from tests.experiments.harness import Experiment

pytestmark = pytest.mark.slow

SETS = ["held-out", "new_stories", "larger_numbers", "contradictions", "sound_twins"]


def test_probe_of_any_model(model, tmp_path):
    run = Experiment("pattern_matching_probe.py", tmp_path / "probe", "--model", str(model), "--smoke")
    done = run.run()
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in SETS)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert [name for name in summary if name != "config"] == SETS
    samples = json.loads((run.folder / "samples.json").read_text())
    assert [row["answer"] for row in samples["contradictions"]] == ["contradiction"] * 4
    assert (run.folder / "probe.png").exists()  # tests/evaluation/test_report.py looks at what is drawn


def test_bad_input_is_one_line(model, tmp_path):
    for flags, message in [
        (("--shots", "5"), "--shots 5 is out of range: give a number from 0 to 4"),
        (("--max-tokens", "500"), "more than the model's context of 512"),
    ]:
        failed = Experiment("pattern_matching_probe.py", tmp_path / "probe", "--model", str(model), *flags).run()
        assert failed.returncode == 2
        assert message in failed.stderr and len(failed.stderr.strip().splitlines()) == 1

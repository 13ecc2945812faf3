"""The experiments on what reinforcement learning selects, as a person runs them."""

import csv

import pytest

from tests.experiments.harness import Experiment, coloured_pixels

pytestmark = pytest.mark.slow


def table(file):
    with file.open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("name", ["grpo_variants", "internal_rewards"])
def test_comparisons(tmp_path, name):
    only = {"grpo_variants": "dapo,rloo", "internal_rewards": "majority,trajectory-entropy"}[name]
    run = Experiment(f"{name}.py", tmp_path / "runs", "--smoke", "--only", only)
    done = run.run()
    assert done.returncode == 0, done.stderr
    assert [row["run"] for row in table(run.folder / "runs.csv")] == only.split(",")
    assert len(table(run.folder / "steps.csv")) == 4
    assert coloured_pixels(run.folder / "curves.png") > 500
    refused = run.run("--only", "grop")
    assert refused.returncode == 2
    assert "--only 'grop' is unknown" in refused.stderr


def test_pattern_selection(tmp_path):
    run = Experiment("pattern_selection.py", tmp_path / "runs", "--smoke", "--starts", "poor,warm_start")
    done = run.run()
    assert done.returncode == 0, done.stderr
    rows = table(run.folder / "selection.csv")
    assert [row["start"] for row in rows] == ["poor", "warm_start"]
    for row in rows:
        terms = sum(float(row[name]) for name in ("selection", "execution", "interaction"))
        assert terms == pytest.approx(float(row["after"]) - float(row["before"]), abs=1e-12)
    assert coloured_pixels(run.folder / "arrows.png") > 500


def test_pattern_selection_of_any_model_and_task(tmp_path, model, task):
    flags = ["--smoke", "--discover", "2", "--starts", "as-is", "--model", str(model), "--task", str(task)]
    run = Experiment("pattern_selection.py", tmp_path / "runs", *flags)
    done = run.run()
    assert done.returncode == 0, done.stderr
    (row,) = table(run.folder / "selection.csv")
    assert row["start"] == "as-is" and 0 <= float(row["path_coverage"]) <= 1
    assert done.stdout.count("of its tokens") == 2 and "clusters of the start's own completions" in done.stdout


def test_pattern_theory(tmp_path):
    """Numbers that an independent integration gave (Euler steps, by hand)."""
    run = Experiment("pattern_theory.py", tmp_path / "runs", "--patterns", "20", "--questions", "20")
    done = run.run()
    assert done.returncode == 0, done.stderr
    times = [float(row["time"]) for row in table(run.folder / "fast.csv")]
    assert times == pytest.approx([17.4, 29.3, 62.2, 115, 220], rel=5e-3)
    slow = table(run.folder / "entangled.csv")
    assert all(float(row["warm_start"]) < 0.5 * float(row["time"]) for row in slow)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--starts best", "--starts 'best' is unknown"),
        ("--task gsm8k", "--task gsm8k has no patterns to teach: give --starts as-is"),
        ("--patterns shape", "--patterns 'shape' is unknown"),
        ("--steps 0", "--steps 0 is out of range"),
    ],
)
def test_pattern_selection_refuses(tmp_path, flags, message):
    done = Experiment("pattern_selection.py", tmp_path / "runs", *flags.split()).run()
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()

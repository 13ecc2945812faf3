"""The benchmarks run, with whatever peers are installed, and say what they measured."""

import json

import pytest

from tests.experiments.harness import Experiment

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("script", "flags", "count"),
    [
        ("benchmarks/sampler.py", (), 3),
        ("benchmarks/sampler.py", ("--uneven",), 2),
        ("benchmarks/grpo_step.py", (), 2),
        ("benchmarks/sft.py", ("--task", "grade-school"), 2),
    ],
)
def test_a_benchmark_reports_medians_and_ratios(script, flags, count, tmp_path):
    run = Experiment(script, tmp_path / "figures.json", "--smoke", *flags)
    done = run.run()
    assert done.returncode == 0, done.stderr
    figures = json.loads(run.folder.read_text())
    contenders = [value for value in figures.values() if isinstance(value, dict) and "median_s" in value]
    assert contenders[0]["ratio"] == 1 and all(len(value["seconds"]) == 1 for value in contenders)
    absent = sum("is absent" in line for line in done.stdout.splitlines())
    assert len(contenders) + absent == count
    assert json.loads(done.stdout.splitlines()[-1]) == figures


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("benchmarks/memory.py", "GB, at its peak"),
        ("benchmarks/grading.py", "20 answers in"),
        ("benchmarks/growth.py", "the prompt's share of an update"),
    ],
)
def test_the_other_benchmarks_report(script, says, tmp_path):
    run = Experiment(script, tmp_path / "out", "--smoke").run()
    assert run.returncode == 0, run.stderr
    assert says in run.stdout

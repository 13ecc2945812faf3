"""The changes that CONTRIBUTING.md shows work as shown."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.objectives import GRPO, surrogates
from jaxreason.rewards import numbers, registry
from jaxreason.tasks import Problem

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def added(diff: str) -> str:
    """The lines that a diff adds, but for an entry of a table."""
    lines = [line[1:] for line in diff.splitlines() if line.startswith("+")]
    return "\n".join(line for line in lines if not line.startswith('    "'))


def test_the_diffs_work():
    advantage, surrogate, task, reward, _ = map(added, re.findall(r"```diff\n(.*?)```", TEXT, flags=re.S))
    sizes = [len(each.splitlines()) for each in (advantage, surrogate, task, reward)]
    assert all(size <= limit for size, limit in zip(sizes, (1, 6, 15, 5), strict=True))
    names = vars(surrogates) | {"jnp": jnp, "GRPO": GRPO, "replace": replace, "numbers": numbers, "Problem": Problem}
    names["REWARDS"] = dict(registry.REWARDS)
    for each in (advantage, surrogate, task, reward):
        exec(each, names)
    assert names["median_centred"](jnp.array([[0.0, 1.0, 5.0]])).tolist() == [[-1.0, 0.0, 4.0]]
    ratios, advantages = jnp.array([[[1.1, 2.0, 0.5]]]), jnp.array([[[1.0, 1.0, -1.0]]])
    logps, zeros = jnp.log(ratios), jnp.zeros((1, 1, 3))
    slope = jax.grad(lambda x: names["squared_clip"](x, zeros, advantages, zeros == 0).loss.sum())(logps)
    np.testing.assert_allclose(slope, [[[-1.1, 0.0, 0.25]]], rtol=1e-6)  # d/dlog r of -r, of a constant, of r² / 2
    assert names["load"](None).train[0].answer == "400"
    right = "#### 4" + " " * 94
    assert names["REWARDS"]["brief"](right, Problem("What is twice 2?", "4", "", 0)) == pytest.approx(0.9)


@pytest.mark.slow
def test_the_experiment_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    assert len(code.splitlines()) <= 40
    (tmp_path / "hot_grpo.py").write_text(code)
    flags = ["--steps", "1", "--max-tokens", "8", "--eval-problems", "4", "--out", str(tmp_path / "run")]
    command = [sys.executable, str(tmp_path / "hot_grpo.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").exists()

"""The pipeline from random weights: every stage, the family it builds, and the same weights after a kill."""

import signal
import time

import jax
import pytest

from jaxreason.weights import load_folder
from tests.experiments.harness import Experiment

FAMILY = {"tiny", "tiny-base", "tiny-large-base"}


def pipeline(folder):
    return Experiment("pipeline.py", folder, "--smoke")


@pytest.mark.slow
def test_the_family_is_the_same_after_a_kill(tmp_path):
    whole, killed = pipeline(tmp_path / "whole"), pipeline(tmp_path / "killed")
    done = whole.run()
    assert done.returncode == 0, done.stderr
    for word in ("reasoner-grpo", "large-base", "question", "pass@1"):
        assert word in done.stdout
    process = killed.start()
    while not (killed.folder / "base-sft" / "checkpoints").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = killed.run()
    assert again.returncode == 0, again.stderr
    assert "small-pretrain: step" not in again.stdout  # a finished stage is not repeated
    files = {file.relative_to(whole.folder) for file in (whole.folder / "family").rglob("*") if file.is_file()}
    assert {file.parts[1] for file in files} == FAMILY
    for file in files:
        assert (whole.folder / file).read_bytes() == (killed.folder / file).read_bytes(), file
    family = {name: load_folder(whole.folder / "family" / name) for name in FAMILY}
    assert len({model.tokenizer.backend.processor.serialized_model_proto() for model in family.values()}) == 1
    sizes = {name: sum(x.size for x in jax.tree.leaves(model.params)) for name, model in family.items()}
    assert sizes["tiny"] == sizes["tiny-base"] and 4 <= sizes["tiny-large-base"] / sizes["tiny-base"] <= 8

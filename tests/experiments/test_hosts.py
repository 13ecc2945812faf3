"""Two processes with four devices each, on this machine, against one process with eight."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from jaxreason.weights import load_model
from tests.experiments.harness import Experiment, rows

pytestmark = pytest.mark.slow
FLAGS = ("--smoke", "--prompts-per-step", "8", "--max-tokens", "24", "--save-every", "4")


def experiment(folder: Path, devices: int, *flags: str) -> Experiment:
    run = Experiment("grpo_gsm8k.py", folder, *FLAGS, *flags)
    run.environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    return run


def pair(folder: Path, *flags: str, other: tuple[str, ...] = ()) -> list[subprocess.Popen]:
    """Two processes of one run; `other` are further flags of the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    extra = ((), other)
    runs = [experiment(folder, 4, "--hosts", f"{address},2,{i}", *flags, *extra[i]) for i in (0, 1)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(run.command, env=run.environment, cwd=folder.parent, **pipes) for run in runs]


def assert_same_metrics(ours: list[dict], expected: list[dict]) -> None:
    assert [row["step"] for row in ours] == [row["step"] for row in expected]
    for row, other in zip(ours, expected, strict=True):
        assert row.keys() == other.keys()
        for name in set(row) - {name for name in row if "second" in name or name.startswith("logp_difference")}:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-5, atol=1e-5, err_msg=f"{row['step']} {name}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Twenty steps by one process with eight devices."""
    folder = tmp_path_factory.mktemp("hosts") / "alone"
    done = experiment(folder, 8, "--steps", "20", "--mesh", "2,4,1", "--export").run()
    assert done.returncode == 0, done.stderr
    return folder


def test_two_hosts_make_the_same_run_as_one(alone, tmp_path):
    both = pair(tmp_path / "run", "--steps", "20", "--mesh", "2,4,1", "--export")
    errors = [process.communicate(timeout=400)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert_same_metrics(rows(tmp_path / "run" / "metrics.jsonl"), rows(alone / "metrics.jsonl"))
    ours, expected = (load_model(str(folder / "model")).params for folder in (tmp_path / "run", alone))
    for a, b in zip(*(np.concatenate([np.ravel(x) for x in leaves(p)]) for p in (ours, expected)), strict=True):
        assert abs(a - b) <= 1e-5


def leaves(tree):
    return [x for value in tree.values() for x in (leaves(value) if isinstance(value, dict) else [value])]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_lost_host_ends_the_other_and_the_run_goes_on_alone(killed, alone, tmp_path):
    both = pair(tmp_path / "run", "--steps", "20", "--mesh", "2,4,1")
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "checkpoints" / "4").exists() and time.monotonic() < deadline:
        assert all(process.poll() is None for process in both), [p.communicate()[1] for p in both]
        time.sleep(0.1)
    both[killed].send_signal(signal.SIGKILL)
    begin, (_, error) = time.monotonic(), both[1 - killed].communicate(timeout=60)
    both[killed].communicate()
    assert both[1 - killed].returncode == 1 and time.monotonic() - begin < 60
    assert f"error: process {killed} is gone; run the same command on all hosts to go on" in error
    if killed:
        done = experiment(tmp_path / "run", 1, "--steps", "20").run()
        assert done.returncode == 0, done.stderr
        assert "steps were done before" in done.stdout
        assert_same_metrics(rows(tmp_path / "run" / "metrics.jsonl"), rows(alone / "metrics.jsonl"))


def test_hosts_that_differ_are_refused(tmp_path):
    both = pair(tmp_path / "run", "--steps", "2", other=("--seed", "1"))
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [2, 2]
    assert all("process 1 has other settings than process 0: start all with the same settings" in e for e in errors)


def test_a_hosts_flag_that_is_none(tmp_path):
    done = experiment(tmp_path / "run", 1, "--hosts", "here").run()
    assert done.returncode == 2
    assert done.stderr == "error: --hosts 'here' is not HOST:PORT,COUNT,NUMBER: give that, or auto\n"

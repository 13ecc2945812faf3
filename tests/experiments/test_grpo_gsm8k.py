"""The main job as a person runs it: what it leaves behind, what survives a kill, what it says to bad input."""

import json
import random
import shutil
import signal
import struct
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxreason.models.fuse import fuse
from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.state import init_state, make_optimizer
from jaxreason.weights.load import load_folder
from tests.experiments.harness import AS_SCRIPT, Experiment, coloured_pixels, rows, timeless

SIZES = ["--prompts-per-step", "2", "--group-size", "4", "--max-tokens", "8", "--learning-rate", "1e-3"]
SIZES += ["--eval-problems", "4", "--eval-samples", "2"]
TIMES = {"seconds_sampling", "seconds_rewards", "seconds_update", "seconds_step", "tokens_per_second"}

LOGGED = {"step", "reward_mean", "strict_share", "lenient_share", "frac_reward_zero_std", "length_mean", "tokens"}
LOGGED |= {
    "train_tokens",
    "truncated_share",
    "loss",
    "kl",
    "entropy",
    "clip_fraction",
    "grad_norm",
    "skipped_updates",
    "idle_batch",
}
LOGGED |= {"logp_difference_mean", "logp_difference_max", "gen_batches", "groups_learned", "staleness_mean"} | TIMES


def experiment(model: Path, task: Path, folder: Path, *flags: str) -> Experiment:
    return Experiment("grpo_gsm8k.py", folder, "--model", str(model), "--task", str(task), *SIZES, *flags)


def final_state(model: Path, folder: Path, step: int) -> list[np.ndarray]:
    like = init_state(fuse(load_folder(model).params), make_optimizer(warmup_updates=5), seed=0)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore(step, like=like)
    return [np.asarray(x) for x in jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))]


def test_a_run_leaves_everything_it_promises(model, task, tmp_path):
    flags = [
        "--steps",
        "3",
        "--eval-every",
        "2",
        "--export",
        "--shots",
        "1",
        "--kl-weight",
        "0.1",
        "--inner-updates",
        "2",
        "--activation-gb",
        "0.0001",
    ]
    run = experiment(model, task, tmp_path / "run", *flags)
    done = run.run()
    assert done.returncode == 0, done.stderr
    folder = run.folder
    metrics = rows(folder / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3]
    assert set(metrics[0]) == LOGGED
    assert metrics[1]["validation_n"] == 4
    assert all(row["logp_difference_max"] < 1e-4 for row in metrics)
    assert all(row["kl"] > 0 for row in metrics)
    assert [len(rows(folder / "samples.jsonl")), sum(row["tokens"] for row in metrics)] == [
        24,
        sum(row["tokens"] for row in rows(folder / "samples.jsonl")),
    ]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["before"].keys() == summary["after"].keys() >= {"pass@1", "se", "lenient_pass@1", "n", "maj@2"}
    assert {"wall_seconds", "tokens"} <= summary.keys()
    assert coloured_pixels(folder / "training.png") > 500
    assert list(folder.glob("events.out.tfevents.*"))
    assert sorted(f.name for f in (folder / "checkpoints").iterdir()) == ["2", "3"]
    trained = load_folder(folder / "model").params["model"]["norm"]["weight"]
    assert (trained != load_folder(model).params["model"]["norm"]["weight"]).any()

    longer = experiment(model, task, tmp_path / "run", *flags).run("--steps", "4")
    assert longer.returncode == 0, longer.stderr
    assert [row["step"] for row in rows(folder / "metrics.jsonl")] == [1, 2, 3, 4]
    other = experiment(model, task, tmp_path / "run", *flags).run("--seed", "1")
    assert other.returncode == 2
    assert "seed = 0, not 1: choose another --out" in other.stderr


@pytest.mark.slow
def test_ten_kills_leave_no_trace(model, task, tmp_path):
    """SIGKILL at random moments of starting, compiling, stepping and saving; then every number equals, bit for bit."""
    steps = 200
    flags = ["--steps", str(steps), "--save-every", "4", "--eval-every", "80", "--learning-rate", "1e-5"]
    whole = experiment(model, task, tmp_path / "whole", *flags)
    assert whole.run().returncode == 0
    chance = random.Random(0)
    killed = experiment(model, task, tmp_path / "killed", *flags)
    log, kills = killed.folder / "metrics.jsonl", 0
    while kills < 10:
        process, before = killed.start(), log.read_text() if log.exists() else ""
        if kills % 3:  # two of three kills fall between the first new step and half a second later
            while process.poll() is None and (log.read_text() if log.exists() else "") in (before, ""):
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.5))
        else:
            time.sleep(chance.uniform(0.5, 6.0))
        assert process.poll() is None, "finished before it could be killed: raise the number of steps"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    done = killed.run()
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(*(final_state(model, r.folder, steps) for r in (killed, whole)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert timeless(rows(log)) == timeless(rows(whole.folder / "metrics.jsonl"))
    assert rows(killed.folder / "samples.jsonl") == rows(whole.folder / "samples.jsonl")
    for name in ("before.json", "after.json"):
        ours, theirs = (json.loads((r.folder / name).read_text()) for r in (killed, whole))
        assert ours.keys() == theirs.keys() == {"held-out"}
        assert ours["held-out"]["samples"] == theirs["held-out"]["samples"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "logged"),
    [
        ("--algorithm reinforce++ --kl-weight 0.1 --max-gen-batches 3 --patterns structural", {"pattern_prose_share"}),
        ("--algorithm gspo --reward majority --top-entropy 0.3 --replay 2", {"label_accuracy", "reward_accuracy"}),
        ("--algorithm rloo --reward self-certainty --overlong-buffer 4 --entropy-weight 0.01", set()),
    ],
    ids=["reinforce++", "gspo", "rloo"],
)
def test_the_family(model, task, tmp_path, flags, logged):
    done = experiment(model, task, tmp_path / "run", "--steps", "2", *flags.split()).run()
    assert done.returncode == 0, done.stderr
    for row in rows(tmp_path / "run" / "metrics.jsonl"):
        assert set(row) >= LOGGED | logged
        assert 1 <= row["gen_batches"] <= 3 and row["skipped_updates"] == 0


@pytest.mark.slow
def test_smoke_shrinks_what_no_flag_sets(model, task, tmp_path):
    run = Experiment("grpo_gsm8k.py", tmp_path / "run", "--model", str(model), "--task", str(task), "--smoke")
    done = run.run("--steps", "1", "--max-tokens", "1")
    assert done.returncode == 0, done.stderr
    config = json.loads((run.folder / "config.json").read_text())
    assert (config["steps"], config["max_tokens"], config["group_size"]) == (1, 1, 4)
    assert rows(run.folder / "metrics.jsonl")[0]["length_mean"] == 1


OFFLINE = f"""
import socket
def refuse(*_): raise AssertionError("network call")
socket.socket.connect = socket.getaddrinfo = refuse
{AS_SCRIPT}
"""


@pytest.mark.slow
def test_without_arguments_it_needs_no_network(tmp_path):
    run = Experiment("grpo_gsm8k.py", tmp_path / "run", "--smoke")
    run.command[1:1] = ["-c", OFFLINE]
    done = run.run()
    assert done.returncode == 0, done.stderr
    config, summary = (json.loads((run.folder / name).read_text()) for name in ("config.json", "summary.json"))
    assert (config["model"], config["task"]) == ("tiny", "grade-school")
    assert summary["after"]["new_stories"]["n"] == 4
    assert max(row["grad_norm"] for row in rows(run.folder / "metrics.jsonl")) > 0
    assert "question" in done.stdout and "--model smollm2-135m" in done.stdout


def test_ctrl_c_says_how_to_go_on(model, task, tmp_path):
    run = experiment(model, task, tmp_path / "run", "--steps", "1000", "--save-every", "2")
    process = run.start()
    while not (run.folder / "checkpoints" / "2").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1] == "stopped: run the same command to go on from the last checkpoint, if any"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stesp", "3"], "unknown argument '--stesp', the closest flag is --steps"),
        (["--steps", "three"], "argument --steps: invalid int value: 'three'"),
        (["--algorithm", "grop"], "--algorithm 'grop' is unknown, the closest is 'grpo'"),
        (["--model", "smollm2-136m"], "model 'smollm2-136m' is not known; give an alias"),
        (["--task", "gsmk"], "task 'gsmk' is unknown, the closest is 'gsm8k'"),
        (["--task", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--data", "nowhere", "--task", "gsm8k"], "nowhere"),
        (["--max-tokens", "500"], "more than the model's context of 512: shorten the prompt or lower --max-tokens"),
        (["--activation-gb", "0"], "--activation-gb 0.0 is out of range"),
        (["--temperature", "0"], "--temperature 0.0 is out of range: give a number from 0.001 to 1000.0"),
        (["--group-size", "1"], "--group-size 1 is out of range: give a number of at least 2"),
        (["--top-p", "7"], "--top-p 7.0 is out of range: give a number from 0 to 1"),
        (["--learning-rate", "nan"], "--learning-rate nan is out of range"),
        (["--eval-problems", "70"], "sums leaves 0 training problems after 70 for validation"),
        (["--out", "/dev/null/run"], "/dev/null/run cannot be written"),
        (["--dtype", "float7"], "--dtype 'float7' is unknown"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(model, task, tmp_path, flags, message):
    failed = experiment(model, task, tmp_path / "run").run(*flags)
    assert failed.returncode == 2
    assert message in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_damaged_files_are_named_in_one_line(model, task, tmp_path):
    """A tensor file cut short, a GGUF that is only a header, a line that is no JSON, a line without an answer."""
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    torn = tmp_path / "torn.jsonl"
    torn.write_text(task.read_text() + '{"question": "1+1?", "ans')
    lacking = tmp_path / "lacking.jsonl"
    lacking.write_text(task.read_text() + '{"question": "1+1?"}\n')
    gguf = tmp_path / "cut.gguf"
    gguf.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 5, 5))
    for arguments, parts in [
        ([broken, task], ["model.safetensors"]),
        ([gguf, task], ["cut.gguf"]),
        ([model, torn], ["torn.jsonl", "81"]),
        ([model, lacking], ["lacking.jsonl", "81", "answer"]),
    ]:
        failed = experiment(*arguments, tmp_path / "run").run()
        assert failed.returncode == 2
        assert len(failed.stderr.strip().splitlines()) == 1
        assert all(part in failed.stderr for part in parts), failed.stderr

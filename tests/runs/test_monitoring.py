"""Long runs: what stalls, diverges or is terminated says so and leaves a checkpoint to resume from."""

import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxreason.errors import InputError, Stopped
from jaxreason.runs import Run, TrainConfig, set_flags
from jaxreason.runs.monitoring import DivergenceMonitor, IdleMonitor, StepProfiler, profiled_steps
from jaxreason.training.state import init_state


def run_steps(tmp_path, metrics_of, steps: int = 40) -> None:
    """Steps that do nothing but report."""
    cfg = set_flags(TrainConfig(), steps=steps, save_every=5, out=str(tmp_path / "run"))
    with Run(cfg, "a test") as run:
        state = run.restore_or(init_state({"w": jnp.zeros(2)}, optax.sgd(0.1), 0))
        while not run.done(state):
            state = state._replace(step=state.step + 1)
            run.end_step(state, {"loss": 0.0, **metrics_of(int(state.step))})


def test_gradients_that_stay_infinite_end_the_run_at_the_last_good_checkpoint(tmp_path):
    with pytest.raises(Stopped, match=r"step 22: gradients are not finite in 10 steps .*checkpoints/20: ") as stopped:
        run_steps(tmp_path, lambda step: {"skipped_updates": max(0, step - 12)})
    assert stopped.value.status == 1


def test_a_collapse_of_the_reward_ends_the_run_at_the_last_good_checkpoint(tmp_path):
    rewards = [0.1 * min(step, 8) for step in range(1, 18)] + [0.02] * 23  # the ten best end with step 17
    shown = dict.fromkeys(("strict_share", "lenient_share", "frac_reward_zero_std", "length_mean", "entropy"), 0.0)
    shown |= dict.fromkeys(("grad_norm", "tokens_per_second", "seconds_sampling", "seconds_update"), 0.0)
    with pytest.raises(Stopped, match=r"step 27: the mean reward fell from 0.800 to 0.020; .*checkpoints/15: "):
        run_steps(tmp_path, lambda step: {"reward_mean": rewards[step - 1], **shown})


def test_what_is_hard_or_solved_or_skips_now_and_then_is_healthy():
    health = DivergenceMonitor()
    for step in range(1, 200):
        earned = {"reward_mean": 1.0 if step > 100 else 0.0, "skipped_updates": step // 2}
        assert not health({"step": step, **earned})


def test_idle_batches_in_a_row_say_once_what_to_change():
    monitor = IdleMonitor()
    idle = [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    messages = [monitor({"idle_batch": each, "reward_mean": 1.0}) for each in idle]
    assert [bool(message) for message in messages] == [False] * 7 + [True] + [False] * 2
    assert "take harder problems" in messages[7]


@pytest.mark.parametrize(("completions", "ends"), [(4, False), (400, True)])
def test_few_completions_may_fall_by_chance(completions, ends):
    health, sizes = DivergenceMonitor(), {"tokens": 8 * completions, "length_mean": 8.0}
    messages = [health({"reward_mean": 0.25 if step < 4 else 0.0, **sizes}) for step in range(40)]
    assert any(messages) == ends


def test_chosen_steps_are_profiled(tmp_path):
    for text, profiled in (("3", True), ("9", False), ("", False)):
        folder = tmp_path / f"profile {text}"
        with StepProfiler(text, folder) as profiler:
            for step in range(1, 5):
                profiler.begin_step(step)
                jax.block_until_ready(jax.jit(lambda x: x @ x)(jnp.ones((8, 8))))
                profiler.end_step(step)
        assert bool(list(folder.rglob("*.xplane.pb"))) == profiled
    for wrong in ("three", "0", "5-3"):
        with pytest.raises(InputError, match="--profile"):
            profiled_steps(wrong)


STALLED = """
import time
from jaxreason.runs.monitoring import Watchdog
with Watchdog("a test", seconds=1.0) as dog:
    dog.heartbeat()
    time.sleep(60)
"""


def test_a_run_that_stands_still_says_where_and_ends():
    done = subprocess.run([sys.executable, "-c", STALLED], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "most recent call first" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: a test stands still, no step in 1 s (threads above); run")


def test_sigterm_saves_and_says_how_to_go_on(tmp_path):
    def terminate(step: int) -> dict:
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(Stopped, match="terminated, saved step 7: run the same command") as stopped:
        run_steps(tmp_path, terminate)
    assert stopped.value.status == 143
    run_steps(tmp_path, lambda step: {})
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 41))

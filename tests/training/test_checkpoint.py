"""Checkpoints: equal after a round trip, the right ones kept, a damaged one refused in one line."""

import re
import subprocess
import sys
from inspect import getsource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.errors import InputError
from jaxreason.training import checkpoint
from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.state import init_state, make_optimizer


def state(step: int):
    optimizer = make_optimizer(1e-3, warmup_updates=2)
    params = {"a": {"w": jnp.arange(64.0).reshape(8, 8) + step}, "b": jnp.full((3,), 0.1, jnp.bfloat16)}
    fresh = init_state(params, optimizer, seed=step)
    return fresh._replace(step=jnp.asarray(step, jnp.int32), position=jnp.asarray(7 * step, jnp.int32))


def test_round_trip_keeps_the_last_two_and_the_best(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_or(state(0)).step == 0
        for step, score in [(1, 0.2), (2, 0.9), (3, 0.1), (4, None), (5, 0.3)]:
            checkpoints.save(state(step), score=score)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2, 4, 5]
        assert checkpoints.best() == 2
        for step in checkpoints.steps():
            restored = checkpoints.restore(step, like=state(0))
            for ours, saved in zip(jax.tree.leaves(restored), jax.tree.leaves(state(step)), strict=True):
                assert ours.dtype == saved.dtype
                if not jax.dtypes.issubdtype(ours.dtype, jax.dtypes.prng_key):
                    np.testing.assert_array_equal(ours, saved)
            assert jax.random.bits(restored.key) == jax.random.bits(state(step).key)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a": {"w": jnp.ones((8, 4))}, "b": jnp.ones(3, jnp.bfloat16)}, r"\(a.w is \(8, 8\) there, \(8, 4\) here\)"),
        ({"a": {"w": jnp.ones((8, 8))}, "c": jnp.ones(3, jnp.bfloat16)}, r"\(b is \(3,\) there, missing here\)"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(params, message, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.wait()
        with pytest.raises(InputError, match=rf"checkpoint .*/1 is of another model {message}: give its --model"):
            checkpoints.restore_or(init_state(params, make_optimizer(1e-3), seed=0))


def test_donated_buffers_do_not_change_what_is_saved(tmp_path):
    bump = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    big = {"w": jnp.zeros((2000, 500))}
    with Checkpoints(tmp_path) as checkpoints:
        current = init_state(big, make_optimizer(1e-3), seed=0)
        checkpoints.save(current)
        key = current.key
        current = bump(current._replace(key=jnp.zeros(())))  # overwrites the buffers while they are being written
        jax.block_until_ready(current)
        checkpoints.wait()
        restored = checkpoints.restore(0, like=init_state(big, make_optimizer(1e-3), seed=1))
        np.testing.assert_array_equal(restored.params["w"], 0.0)
        assert (jax.random.key_data(restored.key) == jax.random.key_data(key)).all()


RESTORE = f"""
import sys
from pathlib import Path
import jax.numpy as jnp
from jaxreason.errors import InputError
from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.state import init_state, make_optimizer
{getsource(state)}
with Checkpoints(Path(sys.argv[1])) as checkpoints:
    try:
        checkpoints.restore_or(state(0))
    except InputError as error:
        print(error)
    print(checkpoints.restore(1, like=state(0)).step)
"""


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path, damage):
    """In a process of its own, because orbax's readers complain in the background when their files are gone."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.save(state(2))
    for file in (tmp_path / "2" / "state").rglob("d/*"):
        file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    command = [sys.executable, "-c", RESTORE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    message, step = done.stdout.strip().splitlines()
    assert re.fullmatch(
        r"checkpoint .*/2 cannot be read .*; delete that folder to go on from an earlier one .*", message
    )
    assert step == "1"


def test_a_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.wait()
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
        with pytest.raises(InputError, match=r"does not fit: 0.0 MB free .*complete checkpoints: \[1\]"):
            checkpoints.save(state(2))
        assert checkpoints.steps() == [1]

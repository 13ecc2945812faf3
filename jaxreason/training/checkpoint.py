"""Checkpoints through orbax: atomic, asynchronous, the latest two and the best one kept."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxreason.errors import InputError
from jaxreason.training.state import TrainState
from jaxreason.types import Params, flatten_params

_POLICIES: Any = ocp.training.preservation_policies


def _bare(state: TrainState) -> TrainState:
    """With counters and key as plain numbers: orbax restores no typed keys, and of several hosts all have these."""
    key = np.array(jax.random.key_data(state.key))  # copies: the next update takes over the buffers
    return state._replace(step=np.array(state.step), position=np.array(state.position), key=key)


def _shape(x: Any) -> Any:
    """What orbax needs to know of an array to restore it; of a host array, that it is one."""
    return x if isinstance(x, np.ndarray) else ocp.arrays.to_shape_dtype_struct(x)


def _cause(error: BaseException) -> str:
    """The first line of the error that began a chain of them."""
    return _cause(error.__cause__) if error.__cause__ else (str(error).strip() or repr(error)).splitlines()[0][:200]


def _difference(stored: Params, ours: Params) -> str:
    """The first parameter that only one of two trees has, or in another shape, in words; empty if there is none."""
    stored, ours = (flatten_params(tree) for tree in (stored, ours))
    for name in sorted({*stored, *ours}):
        there, here = (tuple(tree[name].shape) if name in tree else "missing" for tree in (stored, ours))
        if there != here:
            return f"{name} is {there} there, {here} here"
    return ""


class Checkpoints:
    """The checkpoints of one run, numbered by step.

    `save` returns once the state is copied and writes in the background; a folder without the final rename is not a
    checkpoint, so a kill at any moment leaves the last complete one.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        best = _POLICIES.BestN(
            get_metric_fn=lambda metrics: metrics["score"], n=1, keep_checkpoints_without_metrics=False
        )
        self._orbax: Any = ocp.training.Checkpointer(
            str(self.folder),
            preservation_policy=_POLICIES.AnyPreservationPolicy([_POLICIES.LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )

    def save(self, state: TrainState, *, score: float | None = None) -> None:
        """Starts writing `state`; `score` (higher is better) makes it a candidate for the best."""
        step = int(state.step)
        self.wait()
        if step in self.steps():
            return
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise InputError(
                f"checkpoint of {needed / 1e6:.1f} MB does not fit: {free / 1e6:.1f} MB free at {self.folder}; free "
                f"some space or choose another --out (complete checkpoints: {self.steps() or 'none'})"
            )
        self._orbax.save_async(step, _bare(state), metrics=None if score is None else {"score": score})

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first."""
        return sorted(c.step for c in self._orbax.checkpoints)

    def best(self) -> int | None:
        """The step with the highest score among those kept."""
        scored = {c.step: c.metrics["score"] for c in self._orbax.checkpoints if c.metrics}
        return max(scored, key=scored.__getitem__) if scored else None

    def restore_or(self, initial: TrainState) -> TrainState:
        """The latest checkpoint, or `initial` where there is none yet."""
        steps = self.steps()
        return self.restore(steps[-1], like=initial) if steps else initial

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The checkpoint of `step`, in the shapes and on the devices of `like`."""
        try:
            difference = _difference(self._orbax.metadata(step).metadata["params"], like.params)
            state = like if difference else self._orbax.load(step, jax.tree.map(_shape, _bare(like)))
        except Exception as error:  # orbax and tensorstore raise many kinds for one cause: the files are not whole
            raise InputError(
                f"checkpoint {self.folder / str(step)} cannot be read ({_cause(error)}); delete that folder to go on "
                f"from an earlier one (complete: {self.steps()})"
            ) from error
        if difference:
            raise InputError(
                f"checkpoint {self.folder / str(step)} is of another model ({difference}): give its --model, or "
                "another --out"
            )
        counters = {"step": jnp.asarray(state.step), "position": jnp.asarray(state.position)}
        return state._replace(**counters, key=jax.random.wrap_key_data(jnp.asarray(state.key)))

    def wait(self) -> None:
        """Until everything is on disk."""
        try:
            self._orbax.wait()
        except Exception as error:  # whatever the writing threads met: a full disk, a vanished folder
            raise InputError(
                f"a checkpoint could not be written to {self.folder} ({_cause(error)}); mend that and run the same "
                f"command (complete: {self.steps() or 'none'})"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        """Waits for the last save; not after Ctrl-C, which may have stopped the very code it would wait for."""
        if kind is not KeyboardInterrupt:
            self.wait()
            self._orbax.close()

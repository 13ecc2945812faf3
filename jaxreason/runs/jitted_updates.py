"""Updates of a setup: jitted once, sharded, timed."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import Float

from jaxreason.distributed.mesh import shard_batch
from jaxreason.errors import InputError
from jaxreason.models.partition import constrain_params
from jaxreason.objectives.algorithms import ALGORITHMS, Algorithm
from jaxreason.objectives.algorithms import resolve_algorithm as resolve_by_name
from jaxreason.runs.config import AlgorithmFlags, PolicyConfig, choose
from jaxreason.runs.run import Run
from jaxreason.runs.setup import Setup
from jaxreason.training import MicrobatchedUpdate, TrainState, supervised_update
from jaxreason.training.updates import LossStats, Metrics
from jaxreason.types import Array

Update = Callable[[TrainState, Any], tuple[TrainState, dict[str, float]]]
"""An update that donates the state and returns its metrics as host numbers, `seconds_update` among them."""


def resolve_algorithm(run: Run, flags: AlgorithmFlags) -> Algorithm:
    """The named record with the flags that were given; printed and stored in config.json as the run's recipe."""
    choose("algorithm", flags.algorithm, ALGORITHMS)
    algorithm = resolve_by_name(
        flags.algorithm,
        kl_weight=flags.kl_weight,
        entropy_weight=flags.entropy_weight,
        top_entropy=flags.top_entropy,
        overlong_buffer=flags.overlong_buffer,
        max_gen_batches=flags.max_gen_batches,
    )
    limit = run.cfg.sampling.max_tokens
    if flags.overlong_buffer is not None and flags.overlong_buffer >= limit:
        raise InputError(
            f"--overlong-buffer {flags.overlong_buffer:g} leaves nothing of --max-tokens {limit}: give fewer"
        )
    run.record_recipe(f"{flags.algorithm}: {algorithm.describe()}; reward {flags.reward}")
    return algorithm


def make_grpo_update(
    setup: Setup, algorithm: Algorithm, optimizer: optax.GradientTransformation, cfg: PolicyConfig
) -> Update:
    """`make_policy_update` with the settings of the flags."""
    return make_policy_update(
        setup,
        algorithm,
        optimizer,
        temperature=cfg.sampling.temperature,
        inner_updates=cfg.algorithm.inner_updates,
        activation_gb=cfg.devices.activation_gb,
    )


def make_policy_update(
    setup: Setup,
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
    inner_updates: int,
    activation_gb: float,
) -> Update:
    """`MicrobatchedUpdate` of the setup's model."""
    update = MicrobatchedUpdate(
        model=setup.model,
        algorithm=algorithm,
        optimizer=optimizer,
        temperature=temperature,
        inner_updates=inner_updates,
        activation_bytes=activation_gb * 1e9,
        frozen=setup.frozen,
    )
    return timed(update)


def make_update(
    setup: Setup,
    loss: Callable[..., tuple[Float[Array, ""], LossStats]],
    optimizer: optax.GradientTransformation,
    *extra: Any,
    micro_batches: int = 1,
    **settings: Any,
) -> Update:
    """`supervised_update` on `loss(params, batch, *extra, **settings)`, jitted, on the setup's mesh."""

    def update(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return _supervised_step(
            state,
            shard_batch(batch._replace(consumed=None), setup.model.mesh),
            batch.consumed,
            extra,
            setup.frozen,
            loss=loss,
            settings=tuple(settings.items()),
            optimizer=optimizer,
            micro_batches=micro_batches,
            mesh=setup.model.mesh,
            rules=tuple(setup.rules.items()),
        )

    return timed(update)


_STATIC = ("loss", "settings", "optimizer", "micro_batches", "mesh", "rules")


@partial(jax.jit, static_argnames=_STATIC, donate_argnums=0)
def _supervised_step(state, batch, consumed, extra, frozen, *, loss, settings, optimizer, micro_batches, mesh, rules):
    state, metrics = supervised_update(
        state,
        batch._replace(consumed=consumed),
        *extra,
        loss=partial(loss, **dict(settings)),
        optimizer=optimizer,
        frozen=frozen,
        micro_batches=micro_batches,
    )
    return constrain_params(state, mesh, dict(rules)), metrics


def timed(update: Callable[[TrainState, Any], tuple[TrainState, Metrics]]) -> Update:
    """The update with its metrics on the host and its wall time."""

    def call(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, float]]:
        begin = time.perf_counter()
        state, metrics = update(state, batch)
        numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
        return state, numbers | {"seconds_update": time.perf_counter() - begin}

    return call

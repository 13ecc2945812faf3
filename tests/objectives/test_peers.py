"""The same batch through the functions that TRL and verl publish (.ci/run installs them)."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import jax.numpy as jnp
import numpy as np
import pytest

from jaxreason.objectives import (
    CISPO,
    DAPO,
    DR_GRPO,
    GRPO,
    GSPO,
    REINFORCE_PLUS_PLUS,
    REINFORCE_PLUS_PLUS_BASELINE,
    RLOO,
)
from jaxreason.objectives.algorithms import TokenScores, advantages_of
from jaxreason.objectives.shaping import truncated_importance
from jaxreason.objectives.surrogates import cispo, ppo_clip
from tests.objectives.small_batch import ENTROPY, LOGPS, MASK, OLD, OWN, REFERENCE, REWARDS, G, P, T, ours

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def rows(x) -> "torch.Tensor":
    """[P G ...] as TRL and verl have it: [P*G ...]."""
    return torch.tensor(np.asarray(x, np.float64).reshape(P * G, *np.shape(x)[2:]))


def advantages(algorithm) -> np.ndarray:
    known = TokenScores(*(jnp.asarray(x, jnp.float32) for x in (OLD,)), jnp.asarray(MASK), jnp.asarray(REFERENCE))
    made = advantages_of(algorithm, jnp.asarray(REWARDS, jnp.float32)[..., None], (1.0,), known)
    return np.broadcast_to(np.asarray(made), MASK.shape)


def assert_same(loss, leaf, algorithm):
    loss.backward()
    value, (slopes, _) = ours(algorithm)
    np.testing.assert_allclose(value, loss.item(), atol=1e-5)
    np.testing.assert_allclose(slopes, leaf.grad.numpy().reshape(P, G, T), atol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "flags"),
    [
        (GRPO, {"loss_type": "grpo"}),
        (replace(GRPO, kl_weight=0.3), {"loss_type": "grpo", "beta": 0.3}),
        (DR_GRPO, {"loss_type": "dr_grpo"}),
        (replace(DAPO, length_reward=None), {"loss_type": "dapo", "epsilon_high": 0.28}),
        (GSPO, {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}),
        (replace(CISPO, surrogate=partial(cispo, max_ratio=1.2)), {"loss_type": "cispo", "epsilon_high": 1.2}),
        (replace(GRPO, surrogate=partial(ppo_clip, dual=1.3)), {"delta": 1.3}),
        (replace(GRPO, top_entropy=0.4), {"top_entropy_quantile": 0.4}),
    ],
    ids=["grpo", "kl", "dr_grpo", "dapo", "gspo", "cispo", "dual", "top_entropy"],
)
def test_trl(algorithm, flags):
    trl = pytest.importorskip("trl")
    logps = rows(LOGPS).requires_grad_()
    made = advantages(replace(algorithm, top_entropy=1.0))[..., 0]
    args = {"delta": None, "use_bias_correction_kl": False, "steps_per_generation": 1}
    trainer = MagicMock(
        beta=0.0,
        loss_type="grpo",
        importance_sampling_level="token",
        epsilon_low=0.2,
        epsilon_high=0.2,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        max_completion_length=T,
        current_gradient_accumulation_steps=1,
    )
    for name, value in flags.items():
        setattr(trainer, name, value)
    trainer.args = SimpleNamespace(**args | {name: flags[name] for name in flags if name in args})
    trainer.accelerator.num_processes = 1
    trainer.accelerator.gather = trainer.accelerator.pad_across_processes = lambda x, **_: x
    trainer.get_high_entropy_mask = partial(trl.GRPOTrainer.get_high_entropy_mask, trainer)
    trainer._get_per_token_logps_and_entropies.return_value = (logps, rows(ENTROPY), None)
    mask = rows(MASK)
    inputs = {"prompt_ids": mask, "prompt_mask": mask, "completion_ids": mask, "completion_mask": mask}
    inputs |= {"advantages": rows(made), "old_per_token_logps": rows(OLD), "ref_per_token_logps": rows(REFERENCE)}
    inputs |= {"num_items_in_batch": mask.sum()}
    assert_same(trl.GRPOTrainer._compute_loss(trainer, None, inputs), logps, algorithm)


def verl_functions():
    return pytest.importorskip("verl.trainer.ppo.core_algos")


@pytest.mark.parametrize(
    ("algorithm", "function", "mode", "clip"),
    [
        (replace(GRPO, surrogate=partial(ppo_clip, dual=3.0)), "vanilla", "seq-mean-token-mean", {}),
        (replace(DR_GRPO, surrogate=partial(ppo_clip, dual=3.0)), "vanilla", "seq-mean-token-sum-norm", {}),
        (
            replace(DAPO, length_reward=None),
            "vanilla",
            "token-mean",
            {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 1e9},
        ),
        (GSPO, "gspo", "seq-mean-token-mean", {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}),
        (replace(CISPO, surrogate=partial(cispo, max_ratio=1.2)), "cispo", "token-mean", {"clip_ratio_low": 1.0}),
        (replace(RLOO, kl_weight=0.0), "gpg", "seq-mean-token-sum", {}),
        (replace(GRPO, importance=truncated_importance), "vanilla", "seq-mean-token-mean", {"clip_ratio_c": 1e9}),
    ],
    ids=["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "importance"],
)
def test_verl_losses(algorithm, function, mode, clip):
    core = verl_functions()
    clip = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2} | clip
    config = core.ActorConfig(strategy="fsdp", rollout_n=G, ppo_micro_batch_size_per_gpu=1, **clip)
    logps, old, weights = rows(LOGPS).requires_grad_(), rows(OLD), None
    if algorithm.importance:
        old, weights = rows(OWN), torch.clamp(torch.exp(rows(OWN) - rows(OLD)), max=2.0)
    made = rows(advantages(replace(algorithm, importance=None)))
    loss_of = core.get_policy_loss_fn(function)
    loss, _ = loss_of(
        old_log_prob=old,
        log_prob=logps,
        advantages=made,
        response_mask=rows(MASK),
        loss_agg_mode=mode,
        config=config,
        rollout_is_weights=weights,
    )
    assert_same(loss, logps, algorithm)


@pytest.mark.parametrize(
    ("algorithm", "function"),
    [
        (GRPO, "compute_grpo_outcome_advantage"),
        (replace(RLOO, kl_weight=0.0), "compute_rloo_outcome_advantage"),
        (RLOO, "compute_rloo_outcome_advantage"),
        (REINFORCE_PLUS_PLUS, "compute_reinforce_plus_plus_outcome_advantage"),
        (REINFORCE_PLUS_PLUS_BASELINE, "compute_reinforce_plus_plus_baseline_outcome_advantage"),
    ],
    ids=["grpo", "rloo", "rloo_kl", "reinforce_pp", "reinforce_pp_baseline"],
)
def test_verl_advantages(algorithm, function):
    """Rewards at the last token, a KL in the reward at every one."""
    core = verl_functions()
    rewards = np.where(np.arange(T) == MASK.sum(axis=-1, keepdims=True) - 1, REWARDS[..., None], 0.0)
    if algorithm.kl_in != "loss":
        rewards = rewards - algorithm.kl_weight * np.where(MASK, OLD - REFERENCE, 0.0)
    settings = {"index": np.repeat(np.arange(P), G), "config": SimpleNamespace(gamma=1.0)}
    settings |= {"epsilon": 1e-4} if algorithm is GRPO else {}
    theirs, _ = getattr(core, function)(token_level_rewards=rows(rewards), response_mask=rows(MASK), **settings)
    np.testing.assert_allclose(advantages(algorithm)[MASK], theirs.numpy().reshape(P, G, T)[MASK], atol=1e-5)

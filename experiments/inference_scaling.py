"""What does more compute at inference buy, and which method of spending it buys most?

    python experiments/inference_scaling.py
    python experiments/inference_scaling.py --model smollm2-135m --baseline '' --task gsm8k --data DATA --problems 50

One model, one task, every method: a direct answer, chain of thought, votes (majority, by rank, by weight, stopped
early, or only where the first answers disagree), best-of-N by three scorers, budget forcing, search over steps,
self-refinement. Votes and best-of-N share one set of samples, split into all its disjoint groups of N. A conventional
model (`--baseline`) shows the cost of the longer answers of a reasoning one. Accuracy with its 95 % interval against
arithmetic, and the methods that no other one beats, as a table, a CSV and a plot. Half an hour on two CPU cores for the
bundled small reasoner.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from inference_scaling.plots import pareto_front, plot_scaling
from jaxtyping import Array, Key
from rich.console import Console
from rich.table import Table

from jaxreason.errors import InputError
from jaxreason.evaluation import accuracy_interval
from jaxreason.inference import (
    Cost,
    Group,
    InferenceModel,
    MethodResult,
    Sample,
    Scorer,
    SelfCertainty,
    best_of_n,
    cascade,
    early_stopping_vote,
    force_budget,
    load_inference_model,
    mean_logp,
    refine,
    reward_scorer,
    self_consistency,
    step_search,
    weighted_consistency,
)
from jaxreason.rewards import numbers
from jaxreason.rewards.learned import LearnedReward
from jaxreason.runs import RunFolder, check_limits, defaults, flag, main, write_csv
from jaxreason.sampling import Sampling
from jaxreason.tasks import Problem, Task, load_task, messages
from jaxreason.text import encode_prompt
from jaxreason.training import EVALUATION
from jaxreason.weights import load_model

DIRECT = "Give the final answer alone, as `#### N`, where N is a number."


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    baseline: str = "tiny-base"  # a conventional model to compare with; empty: none
    reward_model: str = ""  # folder of a reward model for best-of-N; empty: none
    task: str = "grade-school"
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    problems: int = flag(500, 1)  # held out
    samples: int = flag(32, 2)  # per problem, shared by votes and best-of-N
    budgets: str = "8,16,24,32,48"  # tokens of thinking
    max_tokens: int = flag(72, 1)
    answer_tokens: int = flag(12, 1)  # after forced end of thinking
    temperature: float = flag(1.0, 0, 1e3)
    rows: int = flag(256, 1)  # completions sampled side by side
    seed: int = flag(0, 0, 2**32 - 1)
    out: str = "runs/inference_scaling"
    smoke: bool = False  # a few problems


PRETRAINED_DEFAULTS = {
    "task": "gsm8k",
    "problems": 100,
    "samples": 8,
    "max_tokens": 256,
    "budgets": "32,64,128",
    "baseline": "",
}
flag_defaults = defaults(
    pretrained=PRETRAINED_DEFAULTS, smoke={"problems": 3, "samples": 4, "budgets": "8", "max_tokens": 40}
)


Results = list[list[MethodResult]]
"""Each problem's answers by one method, from disjoint samples."""


class Method(NamedTuple):
    name: str
    sizes: Sequence[int]
    """Each N that is measured."""
    run: Callable[[int], Results]


def run(cfg: Config) -> list[dict]:
    check_limits(cfg)
    parse_budgets(cfg)
    console, task = Console(highlight=False), load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    problems, key = task.test[: cfg.problems], jax.random.fold_in(jax.random.key(cfg.seed), EVALUATION)
    model = load(cfg, cfg.model, task)
    methods = shared_sample_methods(cfg, model, problems, key) + own_sample_methods(cfg, task, model, problems, key)
    if cfg.baseline:
        for method in shared_sample_methods(cfg, load(cfg, cfg.baseline, task), problems, key):
            if method.name in ("one answer", "majority"):
                methods.append(method._replace(name=f"{cfg.baseline}, {method.name}"))
    folder, points = RunFolder(Path(cfg.out), asdict(cfg)), []
    for method in methods:
        file = f"{method.name.replace('/', '-').replace(' ', '_')}.json"
        for point in folder.load_or_compute(file, partial(measure, method, problems)):
            console.print(f"{method.name}, N = {point['n']}: {accuracy_cell(point)}")
            points.append(point)
    report(points, folder.path, console, title=f"{cfg.model} on {cfg.task}, {len(problems)} problems")
    return points


def load(cfg: Config, name: str, task: Task) -> InferenceModel:
    sampling, to_messages = Sampling(cfg.temperature), partial(messages, task)
    model = load_inference_model(name, sampling, cfg.max_tokens, to_messages, rows=cfg.rows)
    model.check_messages(map(model.problem_to_messages, task.test[: cfg.problems]))
    return model


class CachedScorer:
    """A scorer evaluated once on each sample; each use still counts its cost."""

    def __init__(self, scorer: Scorer, groups: Sequence[Group]):
        scores = ((group.samples, scorer(group.problem, group.samples)) for group in groups)
        self.scores = {id(sample): score for pair in scores for sample, score in zip(*pair, strict=True)}
        self.cost = getattr(scorer, "cost", lambda problem, samples: Cost())

    def __call__(self, problem: Problem, samples: Sequence[Sample]) -> list[float]:
        return [self.scores[id(sample)] for sample in samples]


def reward_model_scorer(cfg: Config, model: InferenceModel) -> Scorer:
    config, params, tokenizer = load_model(cfg.reward_model, reward=True)

    def encode(problem: Problem) -> list[int]:
        return encode_prompt(tokenizer, model.problem_to_messages(problem))

    return reward_scorer(LearnedReward(config, params, tokenizer, encode))


def shared_sample_methods(
    cfg: Config, model: InferenceModel, problems: Sequence[Problem], key: Key[Array, ""]
) -> list[Method]:
    """Votes and best-of-N; all share `cfg.samples` samples for each problem, which are drawn at first use."""
    groups = cache(lambda: model.sample(problems, cfg.samples, key))
    certainty = cache(lambda: CachedScorer(SelfCertainty(model), groups()))
    reward = cache(lambda: CachedScorer(reward_model_scorer(cfg, model), groups()))

    def apply(choose: Callable[[Group], MethodResult], n: int) -> Results:
        return [[choose(chunk) for chunk in group.chunks(n)] for group in groups()]

    choices: dict[str, Callable[[Group], MethodResult]] = {
        "majority": self_consistency,
        "vote by rank": lambda group: weighted_consistency(group, mean_logp, power=0.5),
        "vote by certainty": lambda group: weighted_consistency(group, certainty()),
        "best by log-probability": lambda group: best_of_n(group, mean_logp),
        "best by certainty": lambda group: best_of_n(group, certainty()),
    }
    if cfg.reward_model:
        choices["best by reward model"] = lambda group: best_of_n(group, reward())
    sizes = [2**i for i in range(1, cfg.samples.bit_length())]
    one = Method("one answer", [1], partial(apply, self_consistency))
    return [one, *(Method(name, sizes, partial(apply, choose)) for name, choose in choices.items())]


def own_sample_methods(
    cfg: Config, task: Task, model: InferenceModel, problems: Sequence[Problem], key: Key[Array, ""]
) -> list[Method]:
    """Methods that sample by themselves; N counts completions (of each step, in searches)."""
    direct = replace(model, problem_to_messages=partial(messages, task._replace(instruction=DIRECT)))
    forced = partial(force_budget, problems=problems, num_samples=1, key=key, answer_tokens=cfg.answer_tokens)
    search = partial(step_search, model, problems, key, scorer=mean_logp, num_expansions=4)
    longest, few = cfg.max_tokens - cfg.answer_tokens, min(4, cfg.samples)

    def early_stop(n: int) -> Results:
        return single(early_stopping_vote(model, problems, n, key, chunk_size=few))

    def where_unsure(n: int) -> Results:
        def cheap(problems: Sequence[Problem]) -> list[Group]:
            return model.sample(problems, few, key)

        def expensive(problems: Sequence[Problem]) -> list[Group]:
            return model.sample(problems, n - few or 1, jax.random.fold_in(key, 1))

        return single(cascade(problems, cheap, expensive))

    methods = [Method("no thinking", [1], lambda n: single(forced(direct, budget=0)))]
    for budget in parse_budgets(cfg):
        methods.append(
            Method(f"budget of {budget}", [1], lambda n, budget=budget: single(forced(model, budget=budget)))
        )
    return [
        *methods,
        Method("thinking again (Wait)", [1], lambda n: single(forced(model, budget=longest, waits=1))),
        Method("majority, early stop", [cfg.samples], early_stop),
        Method("majority where unsure", [cfg.samples], where_unsure),
        Method("step search", [4], lambda n: single(search(beam_width=1))),
        Method("beam of steps", [16], lambda n: single(search(beam_width=4))),
        Method("refinement", [1], lambda n: single(refine(model, problems, key, scorer=mean_logp))),
    ]


def single(results: Sequence[MethodResult | Group]) -> Results:
    """One answer to each problem."""
    return [[self_consistency(result) if isinstance(result, Group) else result] for result in results]


def parse_budgets(cfg: Config) -> list[int]:
    try:
        budgets = [int(number) for number in cfg.budgets.split(",")]
    except ValueError as error:
        raise InputError(f"--budgets {cfg.budgets!r}: give whole numbers with commas between, as 8,16") from error
    for budget in budgets:
        if not 0 <= budget <= cfg.max_tokens - cfg.answer_tokens:
            raise InputError(
                f"--budgets {budget} with --answer-tokens {cfg.answer_tokens} does not fit into --max-tokens "
                f"{cfg.max_tokens}: give from 0 to {cfg.max_tokens - cfg.answer_tokens}"
            )
    return budgets


def measure(method: Method, problems: Sequence[Problem]) -> list[dict]:
    """One point for each N: accuracy, and the mean cost of an answer to one problem."""
    points = []
    for n in method.sizes:
        results = method.run(n)
        rows = zip(results, problems, strict=True)
        grades = [[numbers.lenient(result.text or "", problem) for result in row] for row, problem in rows]
        accuracy = accuracy_interval(np.array(grades))
        costs = np.array([[astuple(result.cost) for result in row] for row in results])
        prompt_tokens, tokens, flops, seconds = costs.mean(axis=(0, 1)).tolist()
        point = {"method": method.name, "n": n, "accuracy": accuracy.mean, "low": accuracy.low, "high": accuracy.high}
        point |= {"prompt_tokens": prompt_tokens, "tokens": tokens, "gigaflops": flops / 1e9, "seconds": seconds}
        points.append(point | {"dropped": sum(result.dropped for row in results for result in row)})
    return points


def accuracy_cell(point: dict) -> str:
    return f"{point['accuracy']:.1%} [{point['low']:.1%}, {point['high']:.1%}]"


def report(points: list[dict], folder: Path, console: Console, title: str) -> None:
    write_csv(folder / "scaling.csv", points)
    table, front = (
        Table("method", "N", "accuracy [95 %]", "prompt", "tokens", "GFLOP", "seconds", "not beaten"),
        pareto_front(points),
    )
    for point in points:
        table.add_row(
            point["method"],
            str(point["n"]),
            accuracy_cell(point),
            f"{point['prompt_tokens']:.0f}",
            f"{point['tokens']:.1f}",
            f"{point['gigaflops']:.3g}",
            f"{point['seconds']:.2g}",
            "•" if point in front else "",
        )
    plot_scaling(points, folder / "scaling.png", title)
    console.print(table, f"all files of this run: {folder}")


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)

"""What does more compute at inference buy, and which way of spending it buys most?

    python experiments/inference_scaling.py
    python experiments/inference_scaling.py --model smollm2-135m --plain '' --task gsm8k --data DATA --problems 50

One model, one task, every method: an answer at once, thinking, votes (majority, by rank, by weight, stopped early, or
only where the first answers disagree), the best of several by three scorers, forced budgets of thinking, search over
steps, self-refinement. Votes and choices among N are taken from one set of samples, in all its disjoint parts. A
conventional model (`--plain`) shows what the longer answers of a reasoning one cost. Accuracy with its interval against
arithmetic, and which methods no other one beats, in a table, a CSV and a plot. Half an hour on two CPU cores for the
small reasoner that ships with the package.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import cache, partial
from math import inf
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from inference_scaling.plots import pareto, plot_scaling
from rich.console import Console
from rich.table import Table

from jaxreason.errors import InputError
from jaxreason.evaluation import mean_with_se
from jaxreason.inference import (
    Cost,
    Group,
    InferenceModel,
    MethodResult,
    Scorer,
    SelfCertainty,
    best_of_n,
    cascade,
    early_stopping_vote,
    force_budget,
    load_inference_model,
    mean_logp,
    refine,
    rewarded,
    self_consistency,
    step_search,
    weighted_consistency,
)
from jaxreason.rewards import numbers
from jaxreason.rewards.learned import LearnedReward
from jaxreason.runs import RunFolder, check_limits, main, presets, write_csv
from jaxreason.sampling import Sampling
from jaxreason.tasks import Problem, Task, load_task, messages
from jaxreason.text import encode_prompt
from jaxreason.training import EVALUATION
from jaxreason.weights import load_model

DIRECT = "Give the final answer alone, as `#### N`, where N is a number."


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    plain: str = "tiny-base"  # a conventional model beside it; empty: none
    judge: str = ""  # folder of a reward model that chooses among answers, too
    task: str = "grade-school"
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    problems: int = 500  # held out
    samples: int = 32  # answers to each, of which votes and choices take parts
    budgets: str = "8,16,24,32,48"  # tokens of thinking
    max_tokens: int = 72
    answer_tokens: int = 12  # after thinking that was cut
    temperature: float = 1.0
    rows: int = 256  # completions side by side
    seed: int = 0
    out: str = "runs/inference_scaling"
    smoke: bool = False  # a few problems


LIMITS = dict.fromkeys(("problems", "max_tokens", "answer_tokens", "rows"), (1, inf)) | {"samples": (2, inf)}
LIMITS |= {"temperature": (0, 1e3), "seed": (0, 2**32 - 1)}
PRETRAINED_DEFAULTS = {
    "task": "gsm8k",
    "problems": 100,
    "samples": 8,
    "max_tokens": 256,
    "budgets": "32,64,128",
    "plain": "",
}
PRESETS = presets(real=PRETRAINED_DEFAULTS, smoke={"problems": 3, "samples": 4, "budgets": "8", "max_tokens": 40})


class Point(NamedTuple):
    """A method at one price."""

    method: str
    n: int
    accuracy: float
    se: float
    prompt_tokens: float
    tokens: float
    gigaflops: float
    seconds: float
    """All of these are for one answer to one problem."""
    dropped: int


Way = Callable[[], list[tuple[int, list[list[MethodResult]]]]]
"""For each N: to each problem, answers of the same method to different samples."""


def run(cfg: Config) -> list[dict]:
    check_limits(cfg, LIMITS)
    budgets_of(cfg)
    console, task = Console(highlight=False), load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
    problems = task.test[: cfg.problems]
    reasoner, key = ready(cfg, cfg.model, task), jax.random.fold_in(jax.random.key(cfg.seed), EVALUATION)
    ways = dict(votes(cfg, reasoner, problems, key)) | dict(searches(cfg, task, reasoner, problems, key))
    if cfg.plain:
        plain = dict(votes(cfg, ready(cfg, cfg.plain, task), problems, key))
        ways |= {f"{cfg.plain}, {name}": plain[name] for name in ("one answer", "majority")}
    folder, points = RunFolder(Path(cfg.out), asdict(cfg)), []
    for name, way in ways.items():
        place = f"{name.replace('/', '-').replace(' ', '_')}.json"
        for point in folder.load_or_compute(
            place, lambda n=name, w=way: [measured(n, *x, problems)._asdict() for x in w()]
        ):
            console.print(f"{name}, N = {point['n']}: {point['accuracy']:.1%} ± {point['se']:.1%}")
            points.append(point)
    report(points, folder.path, console, title=f"{cfg.model} on {cfg.task}, {len(problems)} problems")
    return points


def ready(cfg: Config, model: str, task: Task) -> InferenceModel:
    how = {"sampling": Sampling(cfg.temperature), "max_tokens": cfg.max_tokens, "rows": cfg.rows}
    reasoner = load_inference_model(model, problem_to_messages=partial(messages, task), **how)
    reasoner.check(map(reasoner.problem_to_messages, task.test[: cfg.problems]))
    return reasoner


def votes(cfg: Config, reasoner: InferenceModel, problems: Sequence[Problem], key) -> Iterator[tuple[str, Way]]:
    """What chooses among samples that are drawn once."""
    groups = cache(lambda: reasoner.answer(problems, cfg.samples, key))
    certainty = cache(lambda: Remembered(SelfCertainty(reasoner), groups()))
    sizes = [2**i for i in range(1, cfg.samples.bit_length())]

    def parts(choose: Callable[[Group], MethodResult], counts: Sequence[int] = sizes):
        return [(n, [[choose(part) for part in group.parts(n)] for group in groups()]) for n in counts]

    yield "one answer", lambda: parts(self_consistency, [1])
    yield "majority", lambda: parts(self_consistency)
    yield "vote by rank", lambda: parts(partial(weighted_consistency, scorer=mean_logp, power=0.5))
    yield "vote by certainty", lambda: parts(partial(weighted_consistency, scorer=certainty()))
    yield "best by log-probability", lambda: parts(partial(best_of_n, scorer=mean_logp))
    yield "best by certainty", lambda: parts(partial(best_of_n, scorer=certainty()))
    if cfg.judge:
        yield "best by the judge", lambda: parts(partial(best_of_n, scorer=Remembered(judge(cfg, reasoner), groups())))


def searches(cfg: Config, task: Task, reasoner: InferenceModel, problems, key) -> Iterator[tuple[str, Way]]:
    """What samples in a way of its own."""
    microbatch_size_ = replace(reasoner, problem_to_messages=partial(messages, task._replace(instruction=DIRECT)))
    few, more = min(4, cfg.samples), jax.random.fold_in(key, 1)
    answer, forced = {"answer_tokens": cfg.answer_tokens}, partial(force_budget, problems=problems, count=1, key=key)

    def one(n: int, answers: Sequence[MethodResult | Group]) -> list:
        return [(n, [[self_consistency(x) if isinstance(x, Group) else x] for x in answers])]

    yield "no thinking", lambda: one(1, forced(microbatch_size_, budget=0, **answer))
    for budget in budgets_of(cfg):
        yield f"budget of {budget}", lambda budget=budget: one(1, forced(reasoner, budget=budget, **answer))
    longest = cfg.max_tokens - cfg.answer_tokens
    yield "thinking again (Wait)", lambda: one(1, forced(reasoner, budget=longest, waits=1, **answer))
    yield (
        "majority, early stop",
        lambda: one(cfg.samples, early_stopping_vote(reasoner, problems, cfg.samples, key, microbatch_size_=few)),
    )
    yield (
        "majority where unsure",
        lambda: one(
            cfg.samples,
            cascade(
                problems,
                lambda some: reasoner.answer(some, few, key),
                lambda some: reasoner.answer(some, cfg.samples - few or 1, more),
            ),
        ),
    )
    search = partial(step_search, reasoner, problems, key, scorer=mean_logp, expand=4)
    yield "step search", lambda: one(4, search(width=1))
    yield "beam of steps", lambda: one(16, search(width=4))
    yield "refinement", lambda: one(1, refine(reasoner, problems, key, scorer=mean_logp))


class Remembered:
    """A scorer's opinion of samples, asked once; each use still counts its cost."""

    def __init__(self, scorer: Scorer, groups: Sequence[Group]):
        scores = ((group.samples, scorer(group.problem, group.samples)) for group in groups)
        self.known = {id(sample): score for pair in scores for sample, score in zip(*pair, strict=True)}
        self.cost = getattr(scorer, "cost", lambda problem, samples: Cost())

    def __call__(self, problem: Problem, samples: Sequence) -> list[float]:
        return [self.known[id(sample)] for sample in samples]


def judge(cfg: Config, reasoner: InferenceModel) -> Scorer:
    config, params, tokenizer = load_model(cfg.judge, reward=True)
    return rewarded(
        LearnedReward(config, params, tokenizer, lambda p: encode_prompt(tokenizer, reasoner.problem_to_messages(p)))
    )


def budgets_of(cfg: Config) -> list[int]:
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


def measured(name: str, n: int, answers: list[list[MethodResult]], problems: Sequence[Problem]) -> Point:
    rows = list(zip(answers, problems, strict=True))
    grades = [[numbers.lenient(one.text or "", problem) for one in row] for row, problem in rows]
    costs = np.array([[astuple(one.cost) for one in row] for row, _ in rows]).mean(axis=(0, 1))
    read, written, flops, seconds = costs.tolist()
    dropped = sum(one.dropped for row in answers for one in row)
    return Point(name, n, *mean_with_se(np.array(grades)), read, written, flops / 1e9, seconds, dropped)


def report(points: list[dict], folder: Path, console: Console, title: str) -> None:
    write_csv(folder / "scaling.csv", points)
    table, best = Table("method", "N", "accuracy", "read", "written", "GFLOP", "seconds", "not beaten"), pareto(points)
    for point in points:
        cells = (
            f"{point['accuracy']:.1%} ± {point['se']:.1%}",
            f"{point['prompt_tokens']:.0f}",
            f"{point['tokens']:.1f}",
        )
        price = f"{point['gigaflops']:.3g}", f"{point['seconds']:.2g}", "•" if point in best else ""
        table.add_row(point["method"], str(point["n"]), *cells, *price)
    plot_scaling(points, folder / "scaling.png", title)
    console.print(table, f"everything of this run: {folder}")


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

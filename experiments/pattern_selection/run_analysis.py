"""What a run of reinforcement learning selected."""

import json
from collections.abc import Iterator
from functools import cached_property, partial
from math import inf
from pathlib import Path

import jax
import numpy as np
from rich.table import Table

from jaxreason.analysis import (
    Labelled,
    Labeller,
    Pattern,
    crossover,
    decompose,
    label_samples,
    pass_curve,
    path_coverage,
    pattern_stats,
    rank_change_ratio,
)
from jaxreason.analysis.theory import Fit, Regime, fit_flow, regime
from jaxreason.models import Transformer, token_ranks
from jaxreason.runs import read_rows
from jaxreason.sampling import pad_prompts
from jaxreason.sampling.rollout import bucket
from jaxreason.tasks import Task, messages
from jaxreason.text import encode_answer, encode_prompt
from jaxreason.weights import load_model

COMMON = 0.02  # share that a pattern has before or after, to be looked at
TEXTS = 128  # whose tokens are looked at


class RunAnalysis:
    """A run folder of grpo_gsm8k.py with `--patterns` and `--export`, and the model it started from."""

    def __init__(self, folder: Path, start: str, task: Task, labeller: Labeller):
        self.folder, self.start, self.task = folder, start, task
        self.steps = read_rows(folder / "metrics.jsonl")
        sets = [json.loads((folder / f"{when}.json").read_text())["held-out"] for when in ("before", "after")]
        self.samples = [each["samples"] for each in sets]
        self.sides: list[Labelled] = [label_samples(samples, labeller) for samples in self.samples]
        self.terms = decompose(*self.sides)
        every = [name for side in self.sides for name in pattern_stats(side)]
        self.patterns = [pattern_stats(side, every) for side in self.sides]
        self.names = [name for name in self.patterns[0] if max(p[name].share for p in self.patterns) >= COMMON]
        self.success = np.nan_to_num([self.patterns[0][name].success for name in self.names])
        self.best = max(self.names, key=lambda name: self.patterns[0][name].success_interval[0])

    def shares(self, name: str) -> list[float]:
        """Over training, where the run looked at these patterns."""
        return [row.get(f"pattern_{name.replace(' ', '_')}_share", 0.0) for row in self.steps]

    def until(self, share: float = 0.8) -> float:
        """The first of five steps in which the best pattern holds a share on average; infinite if there is none."""
        width = min(5, len(self.steps))
        reached = np.convolve(self.shares(self.best), np.ones(width) / width, mode="valid") >= share
        return float(np.argmax(reached) + 1) if reached.any() else inf

    def measured(self, name: str) -> list[Pattern]:
        """The pattern before and after, where its share is large enough to know its success."""
        return [patterns[name] for patterns in self.patterns if patterns[name].share >= COMMON]

    @cached_property
    def regime(self) -> Regime | None:
        """Of the start; None where there is one pattern alone."""
        shares = np.array([max(self.patterns[0][name].share, 1e-3) for name in self.names])
        return regime(shares / shares.sum(), self.success) if len(self.names) > 1 else None

    @cached_property
    def fit(self) -> Fit | None:
        """The theory, laid over the measured shares."""
        shares = np.array([self.shares(name) for name in self.names]).T
        if self.regime is None or not shares[0].any():
            return None
        shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
        return fit_flow([row["step"] for row in self.steps], shares, self.success)

    @cached_property
    def curves(self) -> list[dict[int, np.ndarray]]:
        """pass@k of every problem, before and after."""
        return [pass_curve(side.right.reshape(len(np.unique(side.problems)), -1)) for side in self.sides]

    @cached_property
    def tokens(self) -> tuple[float, float]:
        """Of what the reinforced model wrote: path coverage and rank-change ratio, against the start."""
        config, params, tokenizer = load_model(self.start)
        rank = jax.jit(partial(token_ranks, model=Transformer(config)))
        both, tuned = [], load_model(str(self.folder / "model")).params
        known = {problem.index: problem for problem in self.task.test}
        for sample in self.samples[1][:TEXTS]:
            prompt = messages(self.task, known[sample["index"]])
            ids = encode_answer(tokenizer, prompt, sample["completion"])
            mask = np.arange(bucket(len(ids))) < len(ids)
            tokens = np.zeros(len(mask), np.int32)
            tokens[mask] = ids
            given = pad_prompts([encode_prompt(tokenizer, prompt)]), tokens[None, None], mask[None, None]
            both.append([np.asarray(rank(each, *given))[0, 0, mask] for each in (params, tuned)])
        base, moved = (np.concatenate(ranks)[None, None] for ranks in zip(*both, strict=True))
        mask = np.ones(base.shape, bool)
        return path_coverage(base, mask), rank_change_ratio(base, moved, mask)

    def row(self) -> dict:
        accuracy = {when: float(side.right.mean()) for when, side in zip(("before", "after"), self.sides, strict=True)}
        before, after = (patterns[self.best] for patterns in self.patterns)
        best = {"best": self.best, "share_before": before.share, "share_after": after.share}
        best |= {"success_before": before.success, "success_after": after.success, "until_80": self.until()}
        terms = self.terms._asdict()
        intervals = terms.pop("intervals")
        limits = {f"{name}_{end}": intervals[name][i] for name in terms for i, end in enumerate(("low", "high"))}
        theory = {"regime": self.regime.kind} if self.regime else {}
        theory |= {"speed": self.fit.speed, "misfit": self.fit.error} if self.fit else {}
        tokens = dict(zip(("path_coverage", "rank_change"), self.tokens, strict=True))
        return accuracy | best | terms | limits | theory | tokens | {"crossover": crossover(*self.curves)}

    def describe(self) -> Iterator[Table | str]:
        table = Table("pattern", "share before", "after", "success before", "after")
        for name in self.names:
            both = [patterns[name] for patterns in self.patterns]
            shares = (percent(p.share, p.share_interval) for p in both)
            table.add_row(name, *shares, *(percent(p.success, p.success_interval) if p.count else "" for p in both))
        yield table
        terms, limits = self.terms._asdict(), self.terms.intervals
        parts = [
            f"{name} {terms[name]:+.1%} [{limits[name][0]:+.1%}, {limits[name][1]:+.1%}]"
            for name in ("selection", "execution", "interaction")
        ]
        yield f"accuracy {terms['total']:+.1%}: {', '.join(parts)}"
        both = [self.measured(name) for name in self.names]
        moved = [
            name
            for name, sides in zip(self.names, both, strict=True)
            if len(sides) == 2 and apart(*(side.success_interval for side in sides))
        ]
        yield f"ways whose success moved beyond its intervals: {', '.join(moved) or 'none'}"
        if self.regime:
            when = f"from step {self.until():.0f} on" if self.until() < inf else "at no step"
            yield f"the start is {self.regime.kind}: {self.best} holds 80 % {when}"
        coverage, changed = self.tokens
        yield f"of its tokens {coverage:.1%} were the start's first choice; {changed:.1%} have another rank there"


def apart(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[1] < other[0] or other[1] < one[0]


def percent(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"

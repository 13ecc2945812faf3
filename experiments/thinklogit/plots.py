"""Plots of experiments/thinklogit.py."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jaxreason.evaluation import plot_tokens, runs_interval
from jaxreason.inference import InferenceModel
from jaxreason.sampling import completion_keys, trace_guidance
from jaxreason.tasks import Problem
from jaxreason.text import token_strings


def plot_sweep(rows: list[dict], file: Path) -> None:
    """Accuracy over alpha, a line for each W; means over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for warmup in dict.fromkeys(row["warmup"] for row in rows):
        line = [row for row in rows if row["warmup"] == warmup]
        alphas = sorted({row["alpha"] for row in line})
        mean = [np.mean([row["pass@1"] for row in line if row["alpha"] == alpha]) for alpha in alphas]
        axes.plot(alphas, mean, "o-", label=f"W = {warmup}")
    axes.set(xlabel="alpha", ylabel="pass@1 on training problems", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def plot_rows(rows: list[dict], accuracy: Mapping[str, list[np.ndarray]], file: Path) -> None:
    """Accuracy with its 95 % interval, and the frequency of words of reasoning; means over seeds. `accuracy`: of every
    problem, by model and seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(row["model"] for row in rows))
    groups = [[row for row in rows if row["model"] == name] for name in names]
    intervals = [runs_interval(accuracy[name]) for name in names]
    errors = np.hstack([interval.errors for interval in intervals])
    left.barh(names, [interval.mean for interval in intervals], xerr=errors, capsize=4, alpha=0.7)
    left.set(xlabel="held-out pass@1 (95 %)", xlim=(0, 1))
    left.invert_yaxis()
    y = np.arange(len(names))
    for i, kind in enumerate(("branching", "backtracking", "verification")):
        frequency = [np.mean([row[kind] for row in group]) for group in groups]
        right.barh(y + 0.25 * (i - 1), frequency, 0.25, label=kind)
    right.set(xlabel="per thousand words", yticks=y, yticklabels=names)
    right.invert_yaxis()
    right.legend()
    figure.savefig(file, dpi=120)


def plot_guidance(model: InferenceModel, problems: Sequence[Problem], file: Path, seed: int) -> None:
    """Guided completions: dark where the guidance moves the logits far, framed where the target alone would have
    sampled another token."""
    sampler = model.problem_sampler()
    keys = completion_keys(jax.random.key(seed), np.array([problem.index for problem in problems]), 1)
    rollouts = sampler.sample(model.params, sampler.prompts(problems), keys=keys)
    trace = jax.jit(partial(trace_guidance, decoder=model.decoder, sampling=model.sampling))
    norm, alone = (np.asarray(x)[:, 0] for x in trace(model.params, rollouts, keys=keys))
    strings, rows = token_strings(model.tokenizer, model.tokenizer.vocab_size), []
    for row, problem in enumerate(problems):
        length = int(rollouts.lengths[row, 0])
        tokens = rollouts.tokens[row, 0, :length]
        texts = [strings[token] if token < len(strings) else "" for token in tokens]
        rows.append((problem.question, texts, norm[row, :length].tolist(), (alone[row, :length] != tokens).tolist()))
    title = "dark: the guidance moves the logits far; framed: the target alone would have sampled another token"
    plot_tokens(rows, file, title=title)

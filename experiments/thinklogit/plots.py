"""What experiments/thinklogit.py draws."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jaxreason.evaluation import plot_tokens
from jaxreason.inference import InferenceModel
from jaxreason.sampling import completion_keys, trace_guidance
from jaxreason.tasks import Problem
from jaxreason.text import token_strings


def plot_sweep(rows: list[dict], file: Path) -> None:
    """Accuracy over alpha, a line for each W; all seeds together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for warmup in dict.fromkeys(row["warmup"] for row in rows):
        of = [row for row in rows if row["warmup"] == warmup]
        alphas = sorted({row["alpha"] for row in of})
        mean = [np.mean([row["pass@1"] for row in of if row["alpha"] == alpha]) for alpha in alphas]
        axes.plot(alphas, mean, "o-", label=f"W = {warmup}")
    axes.set(xlabel="alpha", ylabel="pass@1 on training problems", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def plot_rows(rows: list[dict], file: Path) -> None:
    """Accuracy with its interval, and how often words of reasoning occur; all seeds together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(row["model"] for row in rows))
    grouped = [[row for row in rows if row["model"] == name] for name in names]
    accuracy = [np.mean([row["pass@1"] for row in of]) for of in grouped]
    error = [1.96 * np.sqrt(np.mean([row["se"] ** 2 for row in of]) / len(of)) for of in grouped]
    left.barh(names, accuracy, xerr=error, capsize=4, alpha=0.7)
    left.set(xlabel="held-out pass@1 (95 %)", xlim=(0, 1))
    left.invert_yaxis()
    kinds = ("branching", "backtracking", "verification")
    places = np.arange(len(names))
    for i, kind in enumerate(kinds):
        right.barh(places + 0.25 * (i - 1), [np.mean([row[kind] for row in of]) for of in grouped], 0.25, label=kind)
    right.set(xlabel="words among a thousand", yticks=places, yticklabels=names)
    right.invert_yaxis()
    right.legend()
    figure.savefig(file, dpi=120)


def plot_guidance(reasoner: InferenceModel, problems: Sequence[Problem], file: Path, seed: int) -> None:
    """Guided answers: dark where the guides move the logits far, framed where the target alone would have gone on
    otherwise."""
    sampler = reasoner.problem_sampler()
    keys = completion_keys(jax.random.key(seed), np.array([problem.index for problem in problems]), 1)
    rollouts = sampler.sample(reasoner.params, sampler.prompts(problems), keys=keys)
    follow = jax.jit(partial(trace_guidance, decoder=reasoner.decoder, sampling=reasoner.sampling))
    norm, alone = (np.asarray(x)[:, 0] for x in follow(reasoner.params, rollouts, keys=keys))
    words, rows = token_strings(reasoner.tokenizer, reasoner.tokenizer.vocab_size), []
    for place, problem in enumerate(problems):
        count = int(rollouts.lengths[place, 0])
        tokens = rollouts.tokens[place, 0, :count]
        said = [words[token] if token < len(words) else "" for token in tokens]
        rows.append((problem.question, said, norm[place, :count].tolist(), (alone[place, :count] != tokens).tolist()))
    title = "dark: moved far by the guides; framed: the target alone would have chosen another token"
    plot_tokens(rows, file, title=title)

"""How does a language model come to reason, stage by stage, from random weights?

    python experiments/pipeline.py

Pre-training on generated word problems, instruction tuning, preference tuning, reinforcement learning. Prints what the
model says to the same questions after each stage, and its accuracy. In OUT/family it leaves `tiny`, the small reasoner
that ships with the package, and `tiny-base` and `tiny-large-base`, which answer without thinking aloud.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from math import gcd, inf
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxreason.evaluation import evaluate
from jaxreason.models import ModelConfig, Transformer, init
from jaxreason.objectives import GRPO
from jaxreason.rewards import numbers
from jaxreason.runs import RunFolder, check_limits, main, presets, train
from jaxreason.sampling import ProblemSampler, Sampling, transformer_sampler
from jaxreason.tasks import Problem, Task, load_task
from jaxreason.tasks.grade_school import (
    answer_alone,
    bare_equations,
    checked_steps,
    corpus,
    labelled_steps,
    one_expression,
)
from jaxreason.text import Document, Tokenizer, encode_prompt, prompt_completion, train_tokenizer
from jaxreason.training import (
    EVALUATION,
    TrainState,
    completion_logps,
    grpo_steps,
    grpo_update,
    init_state,
    make_optimizer,
    pair_loss,
    preference_steps,
    sft_loss,
    supervised_update,
    text_steps,
)
from jaxreason.types import Params
from jaxreason.weights import load_folder, save_folder

GRADERS = {"strict": numbers.strict, "lenient": numbers.lenient}

SMALL = ModelConfig(
    "llama", 1024, 128, layers=4, heads=4, kv_heads=4, head_dim=32, intermediate_size=512, max_seq_len=512
)
LARGE = replace(SMALL, hidden_size=256, layers=6, heads=8, kv_heads=8, intermediate_size=768)


def among_several(style: corpus.Style) -> corpus.Style:
    """The style where there are steps to tell apart; a single one is written bare."""
    return lambda problem: (style if len(problem.steps) > 1 else bare_equations)(problem)


ALOUD = {
    among_several(labelled_steps): 0.2,
    among_several(checked_steps): 0.07,
    bare_equations: 0.13,
    one_expression: 0.6,
}
AT_ONCE = {answer_alone: 1.0}
PREMISES = 0.06  # of the texts


@dataclass(frozen=True)
class Stage:
    name: str
    start: str  # the stage it goes on from; empty: random weights
    kind: str  # read (pre-training), teach (instruction), prefer (DPO) or reinforce (GRPO)
    steps: int
    learning_rate: float
    styles: dict | None = None  # how the taught answers are written
    size: ModelConfig = SMALL
    replay: float = 0.0  # share of the taught texts that are of pre-training, so that it is not forgotten


STAGES = (
    Stage("small-read", "", "read", 4000, 2e-3),
    Stage("reasoner-taught", "small-read", "teach", 400, 5e-4, ALOUD),
    Stage("reasoner", "reasoner-taught", "prefer", 10, 5e-6),
    Stage("reasoner-reinforced", "reasoner", "reinforce", 30, 1e-4),
    Stage("base-taught", "small-read", "teach", 400, 5e-4, AT_ONCE),
    Stage("base", "base-taught", "prefer", 10, 5e-6),
    Stage("large-read", "", "read", 1500, 1e-3, size=LARGE),
    Stage("large-base-taught", "large-read", "teach", 600, 3e-4, AT_ONCE, LARGE, replay=0.3),
    Stage("large-base", "large-base-taught", "prefer", 10, 5e-6, size=LARGE),
)
SHOWN = ("small-read", "reasoner-taught", "reasoner", "reasoner-reinforced")
FAMILY = {"tiny": "reasoner", "tiny-base": "base", "tiny-large-base": "large-base"}


@dataclass(frozen=True)
class Config:
    seed: int = 0
    out: str = "runs/pipeline"  # one folder a stage inside; a finished stage is not repeated
    smoke: bool = False  # a few steps of every stage
    share: float = 1.0  # of every stage's steps
    rows: int = 32  # of texts a step
    length: int = 128  # tokens a row
    prompts_per_step: int = 32
    group_size: int = 8  # completions per prompt, to compare or to reinforce
    max_tokens: int = 72  # longest completion
    eval_problems: int = 500  # held-out problems after every stage
    save_every: int = 200  # steps between checkpoints


COUNTS = ("rows", "prompts_per_step", "group_size", "max_tokens", "eval_problems", "save_every")
LIMITS = dict.fromkeys(COUNTS, (1, inf)) | {"length": (128, 512), "share": (1e-4, 1e3), "seed": (0, 2**32 - 1)}
PRESETS = presets(smoke={"share": 0.002, "rows": 4, "prompts_per_step": 2, "group_size": 2, "eval_problems": 4})


def run(cfg: Config) -> None:
    check_limits(cfg, LIMITS)
    console, folder = Console(highlight=False), Path(cfg.out)
    task, tokenizer = load_task("grade-school"), vocabulary(cfg.seed)
    accuracy, said = Table("stage", "steps", "pass@1", "tokens"), {}
    for stage in STAGES:
        place = RunFolder(folder / stage.name, asdict(cfg) | {"stage": stage.name})
        params = trained(stage, cfg, task, tokenizer, place, console)
        done = place.load_or_compute("evaluation.json", partial(measured, stage, cfg, task, tokenizer, params))
        score, said[stage.name] = done["summary"], [row["completion"] for row in done["samples"]]
        percent = f"{100 * score['pass@1']:.1f} % ± {100 * score['se']:.1f}"
        accuracy.add_row(stage.name, str(steps_of(stage, cfg)), percent, f"{score['length_mean']:.1f}")
        console.print(f"{stage.name}: pass@1 {percent}")
    answers = Table("question", *SHOWN, show_lines=True)
    for i, problem in enumerate(task.test[:4]):
        answers.add_row(problem.question, *(Text(said[name][i].strip()) for name in SHOWN))
    console.print(answers, accuracy)
    for name, stage in FAMILY.items():
        model = load_folder(folder / stage / "model")
        save_folder(folder / "family" / name, model.params, model.config, tokenizer, dtype="bfloat16")
    console.print(f"the family: {folder / 'family'}")


def trained(stage: Stage, cfg: Config, task: Task, tokenizer: Tokenizer, place: RunFolder, console: Console) -> Params:
    """The stage's parameters: from its folder where it is finished, else trained from its last checkpoint on."""
    finished, steps = place.path / "model", steps_of(stage, cfg)
    if finished.exists():
        return load_folder(finished).params
    if stage.start:
        params = load_folder(place.path.parent / stage.start / "model").params
    else:
        params = init(jax.random.key(cfg.seed), stage.size)
    total = steps if stage.kind in ("read", "teach") else 0
    optimizer = make_optimizer(stage.learning_rate, warmup_updates=min(100, steps // 10), total_updates=total)
    advance = partial(stepped, stage=stage, cfg=cfg, task=task, tokenizer=tokenizer, start=params, optimizer=optimizer)
    initial = init_state(params, optimizer, cfg.seed)
    kept = {"folder": place, "console": console, "title": stage.name}
    state = train(initial, advance, steps=steps, save_every=cfg.save_every, **kept)
    save_folder(finished, state.params, stage.size, tokenizer)
    return state.params


def stepped(
    state: TrainState, *, stage: Stage, cfg: Config, task: Task, tokenizer: Tokenizer, start: Params, optimizer
) -> Iterator:
    """The steps of the stage, by its kind: (state, metrics, ...)."""
    steps, model = steps_of(stage, cfg), Transformer(stage.size)
    sampling = {"steps": steps, "prompts_per_step": cfg.prompts_per_step, "group_size": cfg.group_size}
    sampling |= {"sampler": sampler(stage, cfg, tokenizer), "reward": numbers.strict}
    if stage.kind == "reinforce":
        update = partial(grpo_update, model=model, algorithm=GRPO, optimizer=optimizer)
        sampling |= {"update": jax.jit(update, donate_argnums=0), "graders": GRADERS}
        return grpo_steps(state, task.train, algorithm=GRPO, **sampling)
    loss = partial(pair_loss if stage.kind == "prefer" else sft_loss, model=model)
    update = partial(supervised_update, loss=loss, optimizer=optimizer)
    if stage.kind == "prefer":
        update = jax.jit(update, donate_argnums=0)
        score, reference = jax.jit(partial(completion_logps, model=model)), jax.tree.map(jnp.copy, start)
        return preference_steps(state, task.train, reference=reference, score=score, update=update, **sampling)
    parts = gcd(cfg.rows, 8)  # an eighth of the rows at a time stays in a CPU's cache: a fifth faster than all at once
    update = jax.jit(partial(update, micro_batches=parts), donate_argnums=0)
    texts = partial(documents, stage, tokenizer, cfg.seed)
    return text_steps(
        state, lambda state: texts(int(state.step)), steps=steps, rows=cfg.rows, length=cfg.length, update=update
    )


def measured(stage: Stage, cfg: Config, task: Task, tokenizer: Tokenizer, params: Params) -> dict:
    key = jax.random.fold_in(jax.random.key(cfg.seed), EVALUATION)
    problems = task.test[: cfg.eval_problems]
    return evaluate(params, problems, sampler=sampler(stage, cfg, tokenizer), key=key, group_size=1)._asdict()


def sampler(stage: Stage, cfg: Config, tokenizer: Tokenizer) -> ProblemSampler:
    """A model that has only read continues a text; from then on it is asked."""

    def encode(problem: Problem) -> list[int]:
        if stage.kind == "read":
            return tokenizer.encode(f"{problem.question}\n")
        return encode_prompt(tokenizer, [{"role": "user", "content": problem.question}])

    sample = transformer_sampler(Transformer(stage.size), tokenizer, Sampling(), max_tokens=cfg.max_tokens)
    return ProblemSampler(encode, sample, tokenizer)


def vocabulary(seed: int) -> Tokenizer:
    texts = corpus.pretraining_texts(f"vocabulary {seed}", drills=0.1, premises=PREMISES)
    return train_tokenizer(islice(texts, 10_000), vocabulary=SMALL.vocab, symbols=("####",))


def documents(stage: Stage, tokenizer: Tokenizer, seed: int, step: int) -> Iterator[Document]:
    """The texts of one step, drawn afresh for each, so that no problem is read twice."""
    end = tokenizer.stop_ids[0]
    texts = corpus.pretraining_texts(f"{seed} {step}", drills=0.3, premises=PREMISES)
    read = (Document([*tokenizer.encode(text), end]) for text in texts)
    if stage.kind == "read":
        yield from read
    again = random.Random(f"replay {seed} {step}")
    for question, answer in corpus.sft_examples(f"{seed} {step}", stage.styles, premises=PREMISES):
        if again.random() < stage.replay:
            yield next(read)
            continue
        prompt = encode_prompt(tokenizer, [{"role": "user", "content": question}])
        yield prompt_completion(prompt, [*tokenizer.encode(answer), end])


def steps_of(stage: Stage, cfg: Config) -> int:
    return max(1, round(stage.steps * cfg.share))


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

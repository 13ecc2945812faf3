"""How does a language model come to reason, stage by stage, from random weights?

    python experiments/pipeline.py

Pre-training on generated word problems, instruction tuning, preference tuning, reinforcement learning. Prints the
model's answers to the same questions after each stage, and its accuracy. OUT/family gets the bundled models: `tiny`,
the small reasoner, and `tiny-base` and `tiny-large-base`, which answer directly.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from math import gcd
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxreason import runs
from jaxreason.distributed.mesh import jit_batch_sharded
from jaxreason.evaluation import evaluate
from jaxreason.models import ModelConfig, Transformer, init
from jaxreason.models.partition import partition_rules
from jaxreason.objectives import GRPO
from jaxreason.rewards import grade, numbers
from jaxreason.sampling import ProblemSampler, Sampling, decode_completions, transformer_sampler
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
    TrainState,
    best_worst_pairs,
    collect_groups,
    completion_logps,
    grpo_update,
    init_state,
    make_batch,
    make_optimizer,
    make_sft_batch,
    next_prompt_batch,
    pair_loss,
    rollout_metrics,
    sample_rows,
    sft_batch_metrics,
    sft_loss,
)
from jaxreason.types import Params
from jaxreason.weights import load_folder, save_folder

SMALL = ModelConfig(
    "llama", 1024, 128, layers=4, heads=4, kv_heads=4, head_dim=32, intermediate_size=512, max_seq_len=512
)
LARGE = replace(SMALL, hidden_size=256, layers=6, heads=8, kv_heads=8, intermediate_size=768)


def among_several(style: corpus.Style) -> corpus.Style:
    """The style where a solution has several steps; a single one is written bare."""
    return lambda problem: (style if len(problem.steps) > 1 else bare_equations)(problem)


COT = {
    among_several(labelled_steps): 0.2,
    among_several(checked_steps): 0.07,
    bare_equations: 0.13,
    one_expression: 0.6,
}
DIRECT = {answer_alone: 1.0}
PREMISES = 0.06  # share of the documents


@dataclass(frozen=True)
class Stage:
    name: str
    start: str  # the stage it goes on from; empty: random weights
    kind: str  # pretrain, sft, dpo or grpo
    steps: int
    learning_rate: float
    styles: Mapping[corpus.Style, float] = field(default_factory=dict)  # how SFT examples are written, with shares
    size: ModelConfig = SMALL
    replay: float = 0.0  # share of the SFT documents that are of pre-training, so that it is not forgotten


STAGES = (
    Stage("small-pretrain", "", "pretrain", 4000, 2e-3),
    Stage("reasoner-sft", "small-pretrain", "sft", 400, 5e-4, COT),
    Stage("reasoner", "reasoner-sft", "dpo", 10, 5e-6),
    Stage("reasoner-grpo", "reasoner", "grpo", 30, 1e-4),
    Stage("base-sft", "small-pretrain", "sft", 400, 5e-4, DIRECT),
    Stage("base", "base-sft", "dpo", 10, 5e-6),
    Stage("large-pretrain", "", "pretrain", 1500, 1e-3, size=LARGE),
    Stage("large-base-sft", "large-pretrain", "sft", 600, 3e-4, DIRECT, LARGE, replay=0.3),
    Stage("large-base", "large-base-sft", "dpo", 10, 5e-6, size=LARGE),
)
SHOWN = ("small-pretrain", "reasoner-sft", "reasoner", "reasoner-grpo")
FAMILY = {"tiny": "reasoner", "tiny-base": "base", "tiny-large-base": "large-base"}


@dataclass(frozen=True)
class PipelineFlags:
    """sizes of every stage"""

    share: float = runs.flag(1.0, 1e-4, 1e3)  # of every stage's steps
    rows: int = runs.flag(32, 1)  # packed rows a step
    seq_len: int = runs.flag(128, 128, 512)  # tokens a row
    prompts_per_step: int = runs.flag(32, 1)
    group_size: int = runs.flag(8, 1)  # completions per prompt, in DPO and GRPO


@dataclass(frozen=True)
class Config(runs.TrainConfig):
    model: runs.ModelFlags = runs.ModelFlags(model="")  # random weights
    pipeline: PipelineFlags = PipelineFlags()
    run: runs.RunFlags = runs.RunFlags(out="runs/pipeline", save_every=200)  # a folder a stage inside


SMOKE = {"share": 0.002, "rows": 4, "prompts_per_step": 2, "group_size": 2, "eval_problems": 4}
flag_defaults = runs.defaults(smoke=SMOKE)
Step = Callable[[TrainState], tuple[TrainState, Mapping[str, Any], list[dict]]]


def main(cfg: Config) -> None:
    runs.check_limits(cfg)
    console, folder = Console(highlight=False), Path(cfg.run.out)
    task, tokenizer = load_task("grade-school"), make_vocabulary(cfg.run.seed)
    accuracy, answers = Table("stage", "steps", "pass@1 [95 %]", "tokens"), {}
    for stage in STAGES:
        result = run_stage(stage, cfg, task, tokenizer, folder)
        summary = result["summary"]
        answers[stage.name] = [row["completion"] for row in result["samples"]]
        percent = f"{summary['pass@1']:.1%} [{summary['low']:.1%}, {summary['high']:.1%}]"
        accuracy.add_row(stage.name, str(num_steps(stage, cfg)), percent, f"{summary['length_mean']:.1f}")
        console.print(f"{stage.name}: pass@1 {percent}")
    shown = Table("question", *SHOWN, show_lines=True)
    for i, problem in enumerate(task.test[:4]):
        shown.add_row(problem.question, *(Text(answers[name][i].strip()) for name in SHOWN))
    console.print(shown, accuracy)
    for name, stage_name in FAMILY.items():
        loaded = load_folder(folder / stage_name / "model")
        save_folder(folder / "family" / name, loaded.params, loaded.config, tokenizer, dtype="bfloat16")
    console.print(f"the family: {folder / 'family'}")


def run_stage(stage: Stage, cfg: Config, task: Task, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Trains the stage, from its last checkpoint on, unless it is finished; returns its evaluation."""
    steps, finished = num_steps(stage, cfg), folder / stage.name / "model"
    with runs.Run(runs.set_flags(cfg, out=str(folder / stage.name), steps=steps, model=stage.name), stage.name) as run:
        sampler = make_sampler(stage, cfg, tokenizer)
        if finished.exists():
            params = load_folder(finished).params
        else:
            start = stage.start and load_folder(folder / stage.start / "model").params
            start = start or init(jax.random.key(cfg.run.seed), stage.size)
            decay = steps if stage.kind in ("pretrain", "sft") else 0
            optimizer = make_optimizer(stage.learning_rate, warmup_updates=min(100, steps // 10), total_updates=decay)
            make_step = {"grpo": grpo_step, "dpo": dpo_step}.get(stage.kind, document_step)
            step = make_step(stage, cfg, task, tokenizer, sampler, start, optimizer)
            state = run.restore_or(init_state(start, optimizer, cfg.run.seed))
            while not run.done(state):
                state, metrics, samples = step(state)
                run.end_step(state, metrics, samples)
            params = state.params
            save_folder(finished, params, stage.size, tokenizer)
        problems, key = task.test[: cfg.evaluation.eval_problems], runs.evaluation_key(cfg)

        def evaluation() -> dict[str, Any]:
            return evaluate(params, problems, sampler=sampler, key=key, group_size=1)._asdict()

        return run.load_or_compute("evaluation.json", evaluation)


def document_step(stage: Stage, cfg: Config, task, tokenizer: Tokenizer, sampler, start, optimizer) -> Step:
    """Pre-training and SFT: next-token prediction on documents drawn afresh for every step."""
    flags, seed, setup = cfg.pipeline, cfg.run.seed, plain_setup(stage, start, tokenizer)
    # An eighth of the rows at a time stays in a CPU's cache: a fifth faster than all at once.
    update = runs.make_update(setup, sft_loss, optimizer, micro_batches=gcd(flags.rows, 8), model=setup.model)

    def step(state: TrainState) -> tuple[TrainState, Mapping[str, Any], list[dict]]:
        documents = documents_of(stage, tokenizer, seed, int(state.step))
        batch = make_sft_batch(documents, rows=flags.rows, length=flags.seq_len)
        state, metrics = update(state, batch)
        return state, metrics | sft_batch_metrics(batch), []

    return step


def dpo_step(stage: Stage, cfg: Config, task: Task, tokenizer: Tokenizer, sampler, start, optimizer) -> Step:
    """DPO on the best and the worst of each group of completions by the model before tuning, by the verifier."""
    flags, model, reference = cfg.pipeline, Transformer(stage.size), jax.tree.map(jnp.copy, start)
    score = jit_batch_sharded(completion_logps, None, model=model)
    update = runs.make_update(plain_setup(stage, start, tokenizer), pair_loss, optimizer, model=model)

    def step(state: TrainState) -> tuple[TrainState, Mapping[str, Any], list[dict]]:
        problems, keys = next_prompt_batch(state, task.train, flags.prompts_per_step, flags.group_size)
        rollouts = sampler.sample(reference, sampler.prompts(problems), keys=keys)
        rewards = grade(decode_completions(rollouts, tokenizer), problems, numbers.strict)
        batch = best_worst_pairs(rollouts, rewards, score(reference, rollouts))
        state, metrics = update(state, batch)
        return state, metrics, []

    return step


def grpo_step(stage: Stage, cfg: Config, task: Task, tokenizer: Tokenizer, sampler, start, optimizer) -> Step:
    """GRPO on the verifier's strict grade, without a KL term."""
    flags, model = cfg.pipeline, Transformer(stage.size)
    update = partial(grpo_update, model=model, algorithm=GRPO, optimizer=optimizer)
    update = runs.timed(jax.jit(update, donate_argnums=0))
    graders = {"strict": numbers.strict, "lenient": numbers.lenient}

    def step(state: TrainState) -> tuple[TrainState, Mapping[str, Any], list[dict]]:
        groups = collect_groups(
            state,
            task.train,
            sampler,
            numbers.strict,
            prompts_per_step=flags.prompts_per_step,
            group_size=flags.group_size,
            graders=graders,
        )
        state, metrics = update(state, make_batch(groups.learned.rollouts, groups.learned.rewards, GRPO))
        return state, metrics | rollout_metrics(groups), sample_rows(groups)

    return step


def plain_setup(stage: Stage, params: Params, tokenizer: Tokenizer) -> runs.Setup:
    rules = partition_rules(stage.size)
    return runs.Setup(Transformer(stage.size), params, params, None, rules, tokenizer, None)


def make_sampler(stage: Stage, cfg: Config, tokenizer: Tokenizer) -> ProblemSampler:
    """A model that was only pre-trained continues a text; later stages are prompted with a question."""

    def encode(problem: Problem) -> list[int]:
        if stage.kind == "pretrain":
            return tokenizer.encode(f"{problem.question}\n")
        return encode_prompt(tokenizer, [{"role": "user", "content": problem.question}])

    limit = cfg.sampling.max_tokens
    return ProblemSampler(
        encode, transformer_sampler(Transformer(stage.size), tokenizer, Sampling(), max_tokens=limit), tokenizer
    )


def make_vocabulary(seed: int) -> Tokenizer:
    texts = corpus.pretraining_texts(f"vocabulary {seed}", drills=0.1, premises=PREMISES)
    return train_tokenizer(islice(texts, 10_000), vocabulary=SMALL.vocab, symbols=("####",))


def documents_of(stage: Stage, tokenizer: Tokenizer, seed: int, step: int) -> Iterator[Document]:
    """The documents of one step, drawn afresh for each, so that no problem is seen twice."""
    end = tokenizer.stop_ids[0]
    texts = corpus.pretraining_texts(f"{seed} {step}", drills=0.3, premises=PREMISES)
    pretraining = (Document([*tokenizer.encode(text), end]) for text in texts)
    if stage.kind == "pretrain":
        yield from pretraining
    replay = random.Random(f"replay {seed} {step}")
    for question, answer in corpus.sft_examples(f"{seed} {step}", stage.styles, premises=PREMISES):
        if replay.random() < stage.replay:
            yield next(pretraining)
            continue
        prompt = encode_prompt(tokenizer, [{"role": "user", "content": question}])
        yield prompt_completion(prompt, [*tokenizer.encode(answer), end])


def num_steps(stage: Stage, cfg: Config) -> int:
    return max(1, round(stage.steps * cfg.pipeline.share))


if __name__ == "__main__":
    runs.main(main, Config, __doc__, flag_defaults)

"""What does a language model learn from worked solutions?

    python experiments/sft.py
    python experiments/sft.py --model smollm2-135m --train-file my_conversations.jsonl

Supervised fine-tuning: the loss is on the answers only, including the token that ends them; documents are packed into
rows in which none sees another. Without `--train-file` they are the task's training problems with their own solutions.
The default trains a model that answers directly, in a minute or two on two CPU cores. Leaves out: sampling examples by
weight.
"""

from dataclasses import dataclass

from jaxreason import runs
from jaxreason.data import filter_or_truncate, load_sft_jsonl
from jaxreason.errors import InputError
from jaxreason.tasks import Task
from jaxreason.text import Document
from jaxreason.training import make_sft_batch, sft_batch_metrics, sft_loss, shuffled_stream


@dataclass(frozen=True)
class SFTFlags:
    """what is learned, and how it is packed"""

    examples: int = runs.flag(0, 0)  # training problems whose solutions are learned; 0: all
    train_file: str = ""  # JSONL of messages, or prompt and completion; empty: the task's own solutions
    rows: int = runs.flag(32, 1)  # packed rows in a step
    seq_len: int = runs.flag(128, 2)  # tokens a row
    micro_batches: int = runs.flag(4, 1)  # parts of the rows that go through one after the other, to save memory
    truncate: bool = False  # cut examples that are longer than a row


@dataclass(frozen=True)
class Config(runs.TrainConfig):
    sft: SFTFlags = SFTFlags()


flag_defaults = runs.defaults(
    pretrained=runs.PRETRAINED_DEFAULTS, smoke=runs.SMOKE_DEFAULTS | {"rows": 4, "micro_batches": 1}
)


def main(cfg: Config) -> dict:
    sft = cfg.sft
    with runs.Run(cfg, "sft") as run:
        runs.check_divides("micro-batches", sft.micro_batches, "rows", sft.rows)
        setup, task = runs.load_setup(cfg), runs.load_task(cfg.data)
        sampler, optimizer = runs.make_sampler(setup, task, cfg), runs.make_optimizer(cfg.optimizer)
        documents = load_sft_jsonl(sft.train_file, setup.tokenizer) if sft.train_file else solutions(cfg, setup, task)
        documents, num_cut = filter_or_truncate(documents, sft.seq_len, truncate=sft.truncate)
        run.console.print(f"{len(documents)} examples, {num_cut} of them cut to {sft.seq_len} tokens")
        update = runs.make_update(setup, sft_loss, optimizer, micro_batches=sft.micro_batches, model=setup.model)

        before = run.load_or_compute(
            "before.json", lambda: runs.evaluate_run(run, "before", setup.params, sampler, task)
        )
        state = run.restore_or(runs.initial_state(setup, optimizer, cfg.run.seed))
        while not run.done(state):
            batch = make_sft_batch(shuffled_stream(documents, state), rows=sft.rows, length=sft.seq_len)
            state, metrics = update(state, batch)
            run.end_step(state, metrics | sft_batch_metrics(batch))
        if cfg.run.export:
            runs.export_model(setup, state.params, run.path, base=cfg.model.model)
        after = runs.evaluate_run(run, "after", setup.merged(state.params), sampler, task)
        return run.finish(before, after)


def solutions(cfg: Config, setup: runs.Setup, task: Task) -> list[Document]:
    """The task's training problems with the solutions that people, or its generator, wrote."""
    solved = [problem for problem in task.train if problem.solution]
    if not solved:
        raise InputError(f"--task {task.name} has no worked solutions: give --train-file FILE")
    return [
        runs.sft_example(setup, task, problem, f"{problem.solution}\n#### {problem.answer}", cfg.data.shots)
        for problem in solved[: cfg.sft.examples or len(solved)]
    ]


if __name__ == "__main__":
    runs.main(main, Config, __doc__, flag_defaults)

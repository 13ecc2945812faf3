"""Can a language model teach itself with a verifier's help?

    python experiments/rejection_sampling.py
    python experiments/rejection_sampling.py --model smollm2-135m --rounds 1 --problems 200

Rejection-sampling fine-tuning (RFT, arXiv 2308.01825; with several rounds as in STaR, arXiv 2203.14465): the model
samples solutions of training problems, the verifier keeps the right ones (no duplicates, a few a problem), and the
model is fine-tuned on them; then again. Each round starts from the parameters of the round before, not from the first
ones as in STaR. Leaves out STaR's hints.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxreason import runs
from jaxreason.data import filter_correct, filter_or_truncate
from jaxreason.errors import InputError
from jaxreason.training import TrainState, make_sft_batch, sft_batch_metrics, sft_loss, shuffled_stream


@dataclass(frozen=True)
class RoundFlags:
    """rounds, and what is learned in each"""

    rounds: int = runs.flag(2, 1)  # the steps are shared out among them
    problems: int = runs.flag(1000, 1)  # training problems sampled in each round, other ones every time
    samples: int = runs.flag(4, 1)  # completions of each
    max_per_problem: int = runs.flag(2, 1)  # right completions that are learned, at most, of each problem
    rows: int = runs.flag(32, 1)  # packed rows in a step
    seq_len: int = runs.flag(160, 2)  # tokens a row
    micro_batches: int = runs.flag(4, 1)  # parts of the rows that go through one after the other, to save memory


@dataclass(frozen=True)
class Config(runs.TrainConfig):
    model: runs.ModelFlags = runs.ModelFlags(model="tiny")
    optimizer: runs.OptimizerFlags = runs.OptimizerFlags(learning_rate=2e-4)
    rounds: RoundFlags = RoundFlags()


flag_defaults = runs.defaults(
    pretrained=runs.PRETRAINED_DEFAULTS, smoke=runs.SMOKE_DEFAULTS | {"problems": 16, "rows": 4, "micro_batches": 1}
)


def main(cfg: Config) -> dict:
    flags = cfg.rounds
    with runs.Run(cfg, "rejection_sampling") as run:
        runs.check_divides("micro-batches", flags.micro_batches, "rows", flags.rows)
        setup, task = runs.load_setup(cfg), runs.load_task(cfg.data)
        sampler, optimizer = runs.make_sampler(setup, task, cfg), runs.make_optimizer(cfg.optimizer)
        update = runs.make_update(setup, sft_loss, optimizer, micro_batches=flags.micro_batches, model=setup.model)

        def right_completions(state: TrainState, round_number: int) -> list[dict]:
            """Right completions of this round's problems, by the model as it is."""
            first = round_number * flags.problems
            problems = [task.train[i % len(task.train)] for i in range(first, first + flags.problems)]
            key, params = jax.random.fold_in(state.key, state.step), setup.merged(state.params)
            name = f"round {round_number}"
            samples = runs.generate_samples(run, name, params, problems, sampler, group_size=flags.samples, key=key)
            right = filter_correct(samples, max_per_problem=flags.max_per_problem)
            run.console.print(f"{len(right)} of them are learned")
            if not right:
                raise InputError(
                    f"none of {len(samples)} completions is right: give more --problems or an easier --task"
                )
            return right

        before = run.load_or_compute(
            "before.json", lambda: runs.evaluate_run(run, "before", setup.params, sampler, task)
        )
        state, documents, current = run.restore_or(runs.initial_state(setup, optimizer, cfg.run.seed)), [], -1
        while not run.done(state):
            round_number, first_step = divmod(int(state.step), -(-cfg.run.steps // flags.rounds))
            if first_step == 0:  # every round begins its own documents anew
                state = state._replace(position=jnp.zeros_like(state.position))
            if round_number != current:  # sampled when the round begins, read again after a restart
                file, current = f"round_{round_number}.json", round_number
                right = run.load_or_compute(file, lambda s=state, n=round_number: right_completions(s, n))
                documents = runs.sampled_examples(setup, task, right, cfg.data.shots)
                documents, _ = filter_or_truncate(documents, flags.seq_len, truncate=False)
            batch = make_sft_batch(shuffled_stream(documents, state), rows=flags.rows, length=flags.seq_len)
            state, metrics = update(state, batch)
            run.end_step(state, metrics | sft_batch_metrics(batch) | {"round": round_number})
        if cfg.run.export:
            runs.export_model(setup, state.params, run.path, base=cfg.model.model)
        after = runs.evaluate_run(run, "after", setup.merged(state.params), sampler, task)
        return run.finish(before, after)


if __name__ == "__main__":
    runs.main(main, Config, __doc__, flag_defaults)

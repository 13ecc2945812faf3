"""What does a student learn from a teacher's completions, its probabilities, or its scores?

    python experiments/distill.py
    python experiments/distill.py --method soft --divergence reverse
    python experiments/distill.py --method on-policy

hard: the teacher samples solutions, the verifier rejects wrong ones (not with `--unfiltered`), the student is
fine-tuned on the rest. soft: on the same completions, the student's distribution is pulled to the teacher's, over the
whole vocabulary or (`--teacher-top-k`) over what the teacher stored. gkd: soft on completions that the student samples
(Agarwal et al., arXiv 2306.13649). on-policy: the student samples, the teacher scores each token, reverse KL as an
advantage. The teacher's completions are in OUT/teacher.jsonl, a file that `--teacher-file` reads, made here or
elsewhere. By default the small reasoner that is bundled with the package teaches its sister, which answers directly: a
minute or two on two CPU cores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxreason import runs
from jaxreason.distributed.mesh import jit_batch_sharded
from jaxreason.errors import InputError
from jaxreason.models import score_completions
from jaxreason.objectives import GRPO
from jaxreason.objectives.divergence import forward_kl, jensen_shannon, reverse_kl
from jaxreason.training import (
    TrainState,
    distill_loss,
    make_sft_batch,
    on_policy_batch,
    sft_batch_metrics,
    sft_loss,
    shuffled_stream,
    student_samples,
    topk_distill_loss,
)

DIVERGENCES = {"forward": forward_kl, "reverse": reverse_kl, "jensen-shannon": jensen_shannon}
METHODS = ("hard", "soft", "gkd", "on-policy")
Step = Callable[[TrainState], tuple[TrainState, dict[str, Any]]]


@dataclass(frozen=True)
class Config(runs.TrainConfig):
    distill: runs.DistillFlags = runs.DistillFlags()


SMOKE = runs.SMOKE_DEFAULTS | {"problems": 16, "rows": 4, "micro_batches": 1, "prompts_per_step": 2, "group_size": 2}
flag_defaults = runs.defaults(pretrained=runs.PRETRAINED_DEFAULTS, smoke=SMOKE)


def main(cfg: Config) -> dict:
    with runs.Run(cfg, "distill") as run:
        runs.check_divides("micro-batches", cfg.distill.micro_batches, "rows", cfg.distill.rows)
        runs.choose("method", cfg.distill.method, dict.fromkeys(METHODS))
        if cfg.distill.method == "on-policy" and cfg.sampling.temperature == 0:
            raise InputError("--temperature 0 with --method on-policy has no gradient: give a temperature above 0")
        setup, task = runs.load_setup(cfg), runs.load_task(cfg.data)
        if cfg.distill.teacher_top_k > setup.config.vocab:
            limit = f"the {setup.config.vocab} tokens of the vocabulary: give fewer"
            raise InputError(f"--teacher-top-k {cfg.distill.teacher_top_k} is more than {limit}")
        sampler, optimizer = runs.make_sampler(setup, task, cfg), runs.make_optimizer(cfg.optimizer)
        make_step = on_policy_step if cfg.distill.method == "on-policy" else document_step
        step = make_step(cfg, run, setup, task, sampler, optimizer)

        before = run.load_or_compute(
            "before.json", lambda: runs.evaluate_run(run, "before", setup.params, sampler, task)
        )
        state = run.restore_or(runs.initial_state(setup, optimizer, cfg.run.seed))
        while not run.done(state):
            state, metrics = step(state)
            run.end_step(state, metrics)
        if cfg.run.export:
            runs.export_model(setup, state.params, run.path, base=cfg.model.model)
        after = runs.evaluate_run(run, "after", setup.merged(state.params), sampler, task)
        return run.finish(before, after)


def document_step(cfg: Config, run: runs.Run, setup: runs.Setup, task, sampler, optimizer) -> Step:
    """hard and soft learn from the teacher's completions, gkd from the student's."""
    flags = cfg.distill
    soft = {"divergence": runs.choose("divergence", flags.divergence, DIVERGENCES), "model": setup.model}
    soft |= {"temperature": flags.distill_temperature}
    if flags.method == "hard":
        update = runs.make_update(setup, sft_loss, optimizer, micro_batches=flags.micro_batches, model=setup.model)
    elif flags.method == "soft" and flags.teacher_top_k:
        update = runs.make_update(setup, topk_distill_loss, optimizer, micro_batches=flags.micro_batches, **soft)
    else:
        teacher = runs.load_teacher(flags.teacher, setup, same_vocabulary=cfg.model.model)
        update = runs.make_update(
            setup,
            distill_loss,
            optimizer,
            teacher.params,
            micro_batches=flags.micro_batches,
            teacher_model=teacher.model,
            **soft,
        )
    examples = [] if flags.method == "gkd" else runs.teacher_examples(run, flags, setup, task)

    def step(state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        if flags.method == "gkd":
            size = flags.prompts_per_step
            samples = student_samples(state, task.train, sampler, prompts_per_step=size, frozen=setup.frozen)
            documents = samples.documents()
        else:
            documents = shuffled_stream(examples, state)
        batch = make_sft_batch(documents, rows=flags.rows, length=flags.seq_len)
        state, metrics = update(state, batch)
        return state, metrics | sft_batch_metrics(batch)

    return step


def on_policy_step(cfg: Config, run: runs.Run, setup: runs.Setup, task, sampler, optimizer) -> Step:
    """The teacher's log-probabilities of the student's tokens, as advantages."""
    flags, temperature = cfg.distill, cfg.sampling.temperature
    teacher = runs.load_teacher(flags.teacher, setup, same_vocabulary=cfg.model.model)
    score = jit_batch_sharded(score_completions, setup.model.mesh, model=teacher.model, temperature=temperature)
    update = runs.make_policy_update(
        setup, GRPO, optimizer, temperature=temperature, inner_updates=1, activation_gb=cfg.devices.activation_gb
    )

    def step(state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        samples = student_samples(
            state,
            task.train,
            sampler,
            prompts_per_step=flags.prompts_per_step,
            group_size=flags.group_size,
            frozen=setup.frozen,
        )
        rollouts = samples.rollouts
        scores = score(teacher.params, rollouts.prompts, rollouts.tokens, rollouts.mask)
        batch, sampled = on_policy_batch(rollouts, scores)
        state, metrics = update(state, batch)
        return state, metrics | sampled

    return step


if __name__ == "__main__":
    runs.main(main, Config, __doc__, flag_defaults)

"""What does a student learn from a teacher's texts, from its probabilities, or from its opinion?

    python experiments/distill.py
    python experiments/distill.py --how soft --divergence reverse
    python experiments/distill.py --how on-policy

hard: the teacher writes solutions, the verifier rejects the wrong ones (not with `--unfiltered`), the student is
fine-tuned on the rest. soft: on the same texts, the student's distribution is pulled to the teacher's, over the whole
vocabulary or (`--top-k`) over what the teacher stored. gkd: soft on texts that the student writes (Agarwal et al.,
arXiv 2306.13649). on-policy: the student writes, the teacher scores each token, reverse KL as an advantage. What the
teacher wrote is in OUT/taught.jsonl, a file that `--taught` reads, made here or elsewhere. By default the small
reasoner that ships with the package teaches its sister, which answers without thinking aloud: a minute or two on two
CPU cores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

import jax
from taught import lessons, load_teacher

from jaxreason.errors import InputError
from jaxreason.models import score_completions
from jaxreason.objectives import GRPO
from jaxreason.objectives.divergence import forward_kl, jensen_shannon, reverse_kl
from jaxreason.runs import PRETRAINED_DEFAULTS, SMOKE_DEFAULTS, Study, Tuning, choose, main, presets
from jaxreason.training import (
    MicrobatchedUpdate,
    distill_loss,
    on_policy_steps,
    sft_loss,
    shuffled_stream,
    student_samples,
    text_steps,
    topk_distill_loss,
)

DIVERGENCES = {"forward": forward_kl, "reverse": reverse_kl, "jensen-shannon": jensen_shannon}


@dataclass(frozen=True)
class Config(Tuning):
    teacher: str = "tiny"  # as --model, with the same vocabulary
    how: str = "hard"  # hard, soft, gkd or on-policy
    taught: str = ""  # JSONL of question and completion, for soft also the stored tokens; empty: the teacher writes
    unfiltered: bool = False  # learn also what the verifier rejects
    problems: int = 2000  # training problems that the teacher solves
    samples: int = 2  # completions of each
    keep: int = 1  # that are learned, at most, of each problem
    examples: int = 0  # that are learned in all, at most; 0: all
    divergence: str = "forward"  # of soft and gkd: forward, reverse or jensen-shannon
    softness: float = 1.0  # temperature of both distributions that soft and gkd compare
    top_k: int = 0  # soft: store and compare the teacher's k most probable tokens and the rest; 0: the whole vocabulary
    rows: int = 32  # of packed texts in a step
    length: int = 160  # tokens a row
    micro_batches: int = 4  # parts of the rows that go through one after the other: the same step, less memory
    prompts_per_step: int = 32  # of gkd and on-policy
    group_size: int = 4  # completions per prompt, of on-policy
    update_memory: float = 0.075  # GB for activations, about, of on-policy


LIMITS = dict.fromkeys(
    ("problems", "samples", "keep", "rows", "micro_batches", "prompts_per_step", "group_size"), (1, inf)
)
LIMITS |= {
    "length": (2, inf),
    "softness": (1e-3, 1e3),
    "top_k": (0, inf),
    "examples": (0, inf),
    "update_memory": (1e-9, inf),
}
PRESETS = presets(
    real=PRETRAINED_DEFAULTS,
    smoke=SMOKE_DEFAULTS | {"problems": 16, "rows": 4, "micro_batches": 1, "prompts_per_step": 2, "group_size": 2},
)


def run(cfg: Config) -> dict:
    study = Study(cfg, "distill", LIMITS)
    if cfg.top_k > study.config.vocab:
        raise InputError(f"--top-k {cfg.top_k} is more than the {study.config.vocab} tokens there are: give fewer")
    advance = choose("how", cfg.how, {"hard": hard, "soft": soft, "gkd": gkd, "on-policy": on_policy})
    return study.run(advance(cfg, study))


def hard(cfg: Config, study: Study) -> Callable:
    """Fine-tuning on what the teacher wrote."""
    update = study.updates(partial(sft_loss, model=study.model), micro_batches=cfg.micro_batches)
    return partial(text_steps, documents=partial(shuffled_stream, lessons(cfg, study)), update=update, **sizes(cfg))


def soft(cfg: Config, study: Study) -> Callable:
    """The teacher's probabilities on the same texts."""
    how = {"model": study.model, "divergence": choose("divergence", cfg.divergence, DIVERGENCES)}
    how |= {"temperature": cfg.softness}
    if cfg.top_k:
        update = study.updates(partial(topk_distill_loss, **how), micro_batches=cfg.micro_batches)
    else:
        model, teacher = load_teacher(cfg, study)
        loss = partial(distill_loss, teacher_model=model, **how)
        update = study.updates(loss, teacher, micro_batches=cfg.micro_batches)
    return partial(text_steps, documents=partial(shuffled_stream, lessons(cfg, study)), update=update, **sizes(cfg))


def gkd(cfg: Config, study: Study) -> Callable:
    """The teacher's probabilities on what the student writes, step by step."""
    model, teacher = load_teacher(cfg, study)
    how = {"divergence": choose("divergence", cfg.divergence, DIVERGENCES), "temperature": cfg.softness}
    loss = partial(distill_loss, model=study.model, teacher_model=model, **how)
    update = study.updates(loss, teacher, micro_batches=cfg.micro_batches)
    asked = {"problems": study.task.train, "prompts_per_step": cfg.prompts_per_step, "sampler": study.sampler}
    return partial(
        text_steps, documents=partial(student_samples, frozen=study.frozen, **asked), update=update, **sizes(cfg)
    )


def on_policy(cfg: Config, study: Study) -> Callable:
    """The teacher's opinion of each token that the student writes."""
    model, teacher = load_teacher(cfg, study)
    score = partial(jax.jit(partial(score_completions, model=model, temperature=cfg.temperature)), teacher)
    update = MicrobatchedUpdate(
        model=study.model,
        algorithm=GRPO,
        optimizer=study.optimizer,
        temperature=cfg.temperature,
        memory=cfg.update_memory * 1e9,
        frozen=study.frozen,
    )
    how = {
        "steps": cfg.steps,
        "prompts_per_step": cfg.prompts_per_step,
        "group_size": cfg.group_size,
        "sampler": study.sampler,
    }
    how |= {"teacher": score, "update": update, "frozen": study.frozen}
    return partial(on_policy_steps, problems=study.task.train, **how)


def sizes(cfg: Config) -> dict[str, int]:
    return {"steps": cfg.steps, "rows": cfg.rows, "length": cfg.length}


if __name__ == "__main__":
    main(run, Config, __doc__, PRESETS)

"""What does a student learn from a teacher's texts, from its probabilities, or from its opinion?

    python experiments/distill.py
    python experiments/distill.py --how soft --divergence reverse
    python experiments/distill.py --how on-policy

hard: the teacher writes solutions, the verifier rejects the wrong ones (not with `--unfiltered`), the student is
fine-tuned on the rest. soft: on the same texts, the student's distribution over the whole vocabulary is pulled to the
teacher's. gkd: soft on texts that the student writes (Agarwal et al., arXiv 2306.13649). on-policy: the student
writes, the teacher scores each token, reverse KL as an advantage. The default has the small reasoner that ships with
the package teach its sister, which answers without thinking aloud, in a minute or two on two CPU cores.
"""

from dataclasses import dataclass
from functools import partial
from math import inf

import jax

from jaxreason.errors import InputError
from jaxreason.evaluation import accepted, evaluate, unfiltered
from jaxreason.models import Transformer, fuse, load_model, score_completions
from jaxreason.objectives import GRPO
from jaxreason.objectives.divergence import forward_kl, jensen_shannon, reverse_kl
from jaxreason.runs import Study, Tuning, choose, main, presets
from jaxreason.text import Document, check_same_vocabulary, fitted
from jaxreason.training import in_turn, on_policy_steps, own_words, teacher_loss, text_loss, text_steps, updater

DIVERGENCES = {"forward": forward_kl, "reverse": reverse_kl, "jensen-shannon": jensen_shannon}


@dataclass(frozen=True)
class Config(Tuning):
    teacher: str = "tiny"  # as --model, with the same vocabulary
    how: str = "hard"  # hard, soft, gkd or on-policy
    divergence: str = "forward"  # of soft and gkd: forward, reverse or jensen-shannon
    softness: float = 1.0  # temperature of both distributions that soft and gkd compare
    unfiltered: bool = False  # learn also what the verifier rejects
    problems: int = 2000  # training problems that the teacher solves
    samples: int = 2  # completions of each
    keep: int = 1  # that are learned, at most, of each problem
    rows: int = 32  # of packed texts in a step
    length: int = 160  # tokens a row
    micro_batches: int = 4  # parts of the rows that go through one after the other: the same step, less memory
    prompts_per_step: int = 32  # of on-policy and gkd
    groups: int = 4  # completions per prompt, of on-policy


LIMITS = dict.fromkeys(("problems", "samples", "keep", "rows", "micro_batches", "prompts_per_step", "groups"), (1, inf))
LIMITS |= {"length": (2, inf), "softness": (1e-3, 1e3)}
SMOKE = {"problems": 16, "rows": 4, "micro_batches": 1, "prompts_per_step": 2, "groups": 2}


def run(cfg: Config) -> dict:
    study = Study(cfg, "distill", LIMITS)
    advance = choose("how", cfg.how, {"hard": hard, "soft": soft, "gkd": gkd, "on-policy": on_policy})
    divergence = choose("divergence", cfg.divergence, DIVERGENCES)
    config, teacher, tokenizer = load_model(cfg.teacher)
    check_same_vocabulary(study.tokenizer, tokenizer, cfg.model, cfg.teacher)
    return study.run(advance(cfg, study, Transformer(config, study.model.dtype), fuse(teacher), divergence))


def hard(cfg: Config, study: Study, teacher_model: Transformer, teacher, divergence):
    """Fine-tuning on what the teacher wrote."""
    texts = study.folder.remember("lessons.json", lambda: written(cfg, study, teacher_model, teacher))
    update = study.updates(partial(text_loss, model=study.model), micro_batches=cfg.micro_batches)
    return partial(text_steps, documents=partial(in_turn, documents(texts, cfg, study)), update=update, **sizes(cfg))


def soft(cfg: Config, study: Study, teacher_model: Transformer, teacher, divergence):
    """The teacher's probabilities on the same texts."""
    texts = study.folder.remember("lessons.json", lambda: written(cfg, study, teacher_model, teacher))
    how = {"teacher_model": teacher_model, "divergence": divergence, "temperature": cfg.softness}
    loss = partial(teacher_loss, model=study.model, **how)
    update = study.updates(loss, teacher, micro_batches=cfg.micro_batches)
    return partial(text_steps, documents=partial(in_turn, documents(texts, cfg, study)), update=update, **sizes(cfg))


def gkd(cfg: Config, study: Study, teacher_model: Transformer, teacher, divergence):
    """The teacher's probabilities on what the student writes, step by step; no gradient through the writing."""
    how = {"teacher_model": teacher_model, "divergence": divergence, "temperature": cfg.softness}
    update = study.updates(partial(teacher_loss, model=study.model, **how), teacher, micro_batches=cfg.micro_batches)
    how = {"problems": study.task.train, "prompts_per_step": cfg.prompts_per_step, "policy": study.policy}
    texts = partial(own_words, frozen=study.frozen, **how)
    return partial(text_steps, documents=texts, update=update, **sizes(cfg))


def on_policy(cfg: Config, study: Study, teacher_model: Transformer, teacher, divergence):
    """The teacher's opinion of each token that the student writes."""
    score = partial(jax.jit(partial(score_completions, model=teacher_model)), teacher)
    update = updater(model=study.model, algorithm=GRPO, optimizer=study.optimizer, memory=0.1e9, frozen=study.frozen)
    how = {"steps": cfg.steps, "prompts_per_step": cfg.prompts_per_step, "groups": cfg.groups, "policy": study.policy}
    return partial(on_policy_steps, problems=study.task.train, teacher=score, update=update, frozen=study.frozen, **how)


def written(cfg: Config, study: Study, model: Transformer, teacher) -> list[dict]:
    """The teacher's solutions that are to be learned."""
    problems = study.task.train[: cfg.problems]
    done = evaluate(teacher, problems, policy=study.asked(model), groups=cfg.samples, key=jax.random.key(cfg.seed))
    kept = (unfiltered if cfg.unfiltered else accepted)(done.samples, most=cfg.keep)
    study.console.print(f"{len(kept)} texts of the teacher, {done.summary['pass@1']:.1%} of its samples are right")
    if not kept:
        raise InputError(f"none of the teacher's {len(done.samples)} samples was right: give another --teacher")
    return kept


def documents(samples: list[dict], cfg: Config, study: Study) -> list[Document]:
    return fitted(study.lessons(samples), cfg.length, truncate=False)[0]


def sizes(cfg: Config) -> dict[str, int]:
    return {"steps": cfg.steps, "rows": cfg.rows, "length": cfg.length}


if __name__ == "__main__":
    main(run, Config, __doc__, lambda cfg: presets(cfg) | (SMOKE if cfg.smoke else {}))

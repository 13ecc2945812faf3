"""A teacher's texts for experiments/distill.py: written, stored in a file with what it thought, read and verified."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax

from jaxreason.data import (
    TeacherSample,
    deduplicate,
    filter_correct,
    filter_or_truncate,
    first_fit,
    load_teacher_jsonl,
    pack,
)
from jaxreason.errors import InputError
from jaxreason.models import Transformer, fuse, packed_topk
from jaxreason.rewards import numbers
from jaxreason.runs import Study, write_text
from jaxreason.tasks import Problem
from jaxreason.text import Document, Tokenizer, check_same_vocabulary
from jaxreason.types import Params
from jaxreason.weights import load_model

ROWS = 8  # of texts whose whole distributions are held at once


def load_teacher(cfg, study: Study) -> tuple[Transformer, Params]:
    """A teacher whose probabilities are compared: of the student's vocabulary."""
    model, params, tokenizer = load_writer(cfg, study)
    check_same_vocabulary(study.tokenizer, tokenizer, cfg.model, cfg.teacher)
    return model, params


def load_writer(cfg, study: Study) -> tuple[Transformer, Params, Tokenizer]:
    config, params, tokenizer = load_model(cfg.teacher)
    return Transformer(config, study.model.dtype), fuse(params), tokenizer


def lessons(cfg, study: Study) -> list[Document]:
    """What is learned of what the teacher wrote."""
    file = Path(cfg.taught or study.folder.path / "taught.jsonl")
    if not (cfg.taught or file.exists()):
        write_teacher_samples(cfg, study, file)
    problems, samples = {problem.question: problem for problem in study.task.train}, []
    for row in load_teacher_jsonl(file, temperature=cfg.softness):
        if row.question not in problems:
            raise InputError(f"{row.name} asks what no training problem of {study.task.name} does: give its own texts")
        problem = problems[row.question]
        right = numbers.strict(row.completion, problem)
        samples.append(
            {"index": problem.index, "completion": row.completion, "strict": right, "truncated": False, "row": row}
        )
    kept = (deduplicate if cfg.unfiltered else filter_correct)(samples, most=cfg.keep)
    kept = kept[: cfg.examples or len(kept)]
    study.console.print(f"{len(kept)} of the teacher's {len(samples)} texts are learned")
    if not kept:
        raise InputError(f"none of the teacher's {len(samples)} texts is right: give another --teacher")
    documents = [lesson(cfg, study, problems[sample["row"].question], sample["row"]) for sample in kept]
    return filter_or_truncate(documents, cfg.length, truncate=False)[0]


def lesson(cfg, study: Study, problem: Problem, row: TeacherSample) -> Document:
    document = study.lesson(problem, row.completion)._replace(name=row.name)
    if not cfg.top_k:
        return document
    prompt = document.loss_mask.index(True)
    if row.tokens is None:
        raise InputError(f"{row.name} has no stored tokens: give --top-k 0, or a file with top_ids and top_logps")
    if row.tokens != list(document.tokens[prompt:]) or row.top[0].max() >= study.tokenizer.vocab_size:
        raise InputError(f"{row.name} was written with another tokenizer than {cfg.model}'s: have a sister model write")
    return document._replace(top=row.top)


def write_teacher_samples(cfg, study: Study, file: Path) -> None:
    model, teacher, tokenizer = load_writer(cfg, study)
    if cfg.top_k:
        check_same_vocabulary(study.tokenizer, tokenizer, cfg.model, cfg.teacher)
    problems = {problem.question: problem for problem in study.task.train[: cfg.problems]}
    how = {"group_size": cfg.samples, "key": jax.random.key(cfg.seed), "model": model, "tokenizer": tokenizer}
    answers = study.written(cfg.teacher, teacher, list(problems.values()), **how)
    whole = [answer for answer in answers if answer["completion"].strip() and not answer["truncated"]]
    lines = [{"question": answer["question"], "completion": answer["completion"]} for answer in whole]
    if cfg.top_k:
        documents = [study.lesson(problems[line["question"]], line["completion"]) for line in lines]
        for line, stored in zip(lines, stored_tokens(cfg, documents, model, teacher), strict=True):
            line.update(stored)
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines))


def stored_tokens(cfg, documents: list[Document], model: Transformer, teacher: Params) -> Iterator[dict]:
    """The ids of each completion, and what the teacher thought most probable in the place of each."""
    top = jax.jit(partial(packed_topk, count=cfg.top_k, model=model, temperature=cfg.softness))
    while documents:
        placed = list(first_fit(documents, rows=ROWS, length=cfg.length))
        packed = pack(placed, rows=ROWS, length=cfg.length)
        ids, logps = jax.device_get(top(teacher, packed))
        for document, row, begin in placed:
            prompt, places = document.loss_mask.index(True), packed.target_positions[row]
            own = row, (places >= begin + prompt) & (places < begin + len(document.tokens))
            stored = {"tokens": document.tokens[prompt:], "temperature": cfg.softness}
            yield stored | {"top_ids": ids[own].tolist(), "top_logps": logps[own].tolist()}
        documents = documents[len(placed) :]

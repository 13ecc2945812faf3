"""Examples for supervised training, made of a task's problems: SFT documents, sampled completions, preference pairs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxreason.data import (
    PreferencePair,
    TeacherSample,
    deduplicate,
    filter_correct,
    filter_or_truncate,
    first_fit,
    load_teacher_jsonl,
    make_pairs,
    pack,
    source,
)
from jaxreason.distributed.mesh import jit_batch_sharded
from jaxreason.errors import InputError
from jaxreason.models import Transformer, fuse, packed_topk
from jaxreason.rewards import numbers
from jaxreason.runs.config import DistillFlags
from jaxreason.runs.evaluation import generate_samples
from jaxreason.runs.folder import write_text
from jaxreason.runs.run import Run
from jaxreason.runs.setup import Setup, make_sampler
from jaxreason.tasks import Problem, Task, messages
from jaxreason.text import Document, Tokenizer, check_same_vocabulary, encode_answer, encode_prompt, prompt_completion
from jaxreason.types import Params
from jaxreason.weights import load_model


def sft_example(setup: Setup, task: Task, problem: Problem, completion: str, shots: int = 0) -> Document:
    """The problem's prompt and a completion to be learned."""
    prompt = messages(task, problem, shots)
    answer = encode_answer(setup.tokenizer, prompt, completion)
    return prompt_completion(encode_prompt(setup.tokenizer, prompt), answer, f"{task.name} problem {problem.index}")


def sampled_examples(setup: Setup, task: Task, samples: Sequence[Mapping[str, Any]], shots: int = 0) -> list[Document]:
    """Sampled completions of training problems (`Evaluation.samples`) as examples."""
    problems = {problem.index: problem for problem in task.train}
    return [sft_example(setup, task, problems[row["index"]], row["completion"], shots) for row in samples]


def write_pairs(run: Run, setup: Setup, task: Task, problems: Sequence[Problem], file: Path) -> None:
    """The completions of all `--generators`, graded, as pairs of the `--pair-types`."""
    flags = run.flags
    generators = flags["generators"].split(",") if flags["generators"] else [flags["model"]]
    wanted = flags["pair_types"] or f"{flags['model']} right>{flags['model']} wrong"
    pair_types = [(chosen, rejected) for chosen, _, rejected in (each.partition(">") for each in wanted.split(","))]
    sources = [f"{generator} {grade}" for generator in generators for grade in ("right", "wrong")]
    for text, pair_type in zip(wanted.split(","), pair_types, strict=True):
        if not set(pair_type) <= set(sources):
            raise InputError(f"--pair-types {text!r} is not 'A>B' of two among {', '.join(sources)}")
    samples = []
    for generator in generators:
        config, params, tokenizer = load_model(generator)
        model = Transformer(config, setup.model.dtype)
        sampler = make_sampler(setup, task, run.cfg, model=model, tokenizer=tokenizer)
        key, size = jax.random.key(flags["seed"]), flags["samples"]
        rows = generate_samples(run, generator, fuse(params), problems, sampler, group_size=size, key=key)
        samples += [row | {"model": generator} for row in rows]
    pairs = make_pairs(samples, pair_types, max_per_problem=flags["max_per_problem"])
    if not pairs:
        raise InputError(f"no problem has completions of both sides of {wanted}: give more --problems")
    prompts = {problem.index: messages(task, problem, flags["shots"]) for problem in problems}
    lines = (
        {
            "prompt": prompts[chosen["index"]],
            "chosen": chosen["completion"],
            "rejected": rejected["completion"],
            "chosen_source": source(chosen),
            "rejected_source": source(rejected),
        }
        for chosen, rejected in pairs
    )
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines))


def count_pair_types(pairs: Sequence[PreferencePair]) -> str:
    """`120 tiny right>tiny wrong, ...`"""
    types = [">".join(pair.sources) for pair in pairs]
    return ", ".join(f"{types.count(kind)} {kind if kind != '>' else 'of a file'}" for kind in dict.fromkeys(types))


# --- a teacher's completions ---

PACKED_ROWS = 8  # rows whose whole distributions are held at once


class Teacher(NamedTuple):
    model: Transformer
    params: Params
    tokenizer: Tokenizer


def load_teacher(name: str, setup: Setup, *, same_vocabulary: str = "") -> Teacher:
    """The teacher's model, computing in the student's type; `same_vocabulary` is the student's name if their
    distributions are compared."""
    config, params, tokenizer = load_model(name)
    if same_vocabulary:
        check_same_vocabulary(setup.tokenizer, tokenizer, same_vocabulary, name)
    return Teacher(Transformer(config, setup.model.dtype), fuse(params), tokenizer)


def teacher_examples(run: Run, flags: DistillFlags, setup: Setup, task: Task) -> list[Document]:
    """The teacher's completions that are learned: those of `--teacher-file`, else sampled now."""
    file = Path(flags.teacher_file or run.path / "teacher.jsonl")
    if not (flags.teacher_file or file.exists()):
        _write_teacher_samples(run, flags, setup, task, file)
    problems = {problem.question: problem for problem in task.train}
    rows = []
    for sample in load_teacher_jsonl(file, temperature=flags.distill_temperature):
        if sample.question not in problems:
            raise InputError(f"{sample.name} asks what no training problem of {task.name} does: give its own texts")
        problem = problems[sample.question]
        grade = numbers.strict(sample.completion, problem)
        rows.append({"index": problem.index, "completion": sample.completion, "strict": grade, "truncated": False})
        rows[-1]["sample"] = sample
    selected = (deduplicate if flags.unfiltered else filter_correct)(rows, max_per_problem=flags.max_per_problem)
    selected = selected[: flags.examples or len(selected)]
    run.console.print(f"{len(selected)} of the teacher's {len(rows)} completions are learned")
    if not selected:
        raise InputError(f"none of the teacher's {len(rows)} completions is right: give another --teacher")
    documents = [_teacher_document(run, flags, setup, task, problems, row["sample"]) for row in selected]
    return filter_or_truncate(documents, flags.seq_len, truncate=False)[0]


def _teacher_document(
    run: Run, flags: DistillFlags, setup: Setup, task: Task, problems: Mapping[str, Problem], sample: TeacherSample
) -> Document:
    """A completion with the teacher's stored tokens, if these are compared."""
    problem = problems[sample.question]
    document = sft_example(setup, task, problem, sample.completion, run.flags["shots"])._replace(name=sample.name)
    if not flags.teacher_top_k:
        return document
    if sample.tokens is None or sample.topk is None:
        raise InputError(f"{sample.name} has no stored tokens: give --teacher-top-k 0, or a file with top_ids")
    prompt = document.prompt_length
    if sample.tokens != list(document.tokens[prompt:]) or sample.topk[0].max() >= setup.tokenizer.vocab_size:
        student = run.flags["model"]
        raise InputError(
            f"{sample.name} was written with another tokenizer than {student}'s: take a teacher with its own"
        )
    return document._replace(topk=sample.topk)


def _write_teacher_samples(run: Run, flags: DistillFlags, setup: Setup, task: Task, file: Path) -> None:
    teacher = load_teacher(flags.teacher, setup, same_vocabulary=run.flags["model"] if flags.teacher_top_k else "")
    sampler = make_sampler(setup, task, run.cfg, model=teacher.model, tokenizer=teacher.tokenizer)
    problems = {problem.question: problem for problem in task.train[: flags.problems]}
    key, chosen = jax.random.key(run.flags["seed"]), list(problems.values())
    rows = generate_samples(run, flags.teacher, teacher.params, chosen, sampler, group_size=flags.samples, key=key)
    complete = [row for row in rows if row["completion"].strip() and not row["truncated"]]
    lines = [{"question": row["question"], "completion": row["completion"]} for row in complete]
    if flags.teacher_top_k:
        shots = run.flags["shots"]
        documents = [sft_example(setup, task, problems[row["question"]], row["completion"], shots) for row in lines]
        for line, stored in zip(lines, _stored_topk(flags, documents, teacher), strict=True):
            line.update(stored)
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines))


def _stored_topk(flags: DistillFlags, documents: list[Document], teacher: Teacher) -> Iterator[dict[str, Any]]:
    """The ids of each completion, and the teacher's most probable tokens at each of them."""
    temperature = flags.distill_temperature
    topk = jit_batch_sharded(packed_topk, None, count=flags.teacher_top_k, model=teacher.model, temperature=temperature)
    while documents:
        placed = list(first_fit(documents, rows=PACKED_ROWS, length=flags.seq_len))
        packed = pack(placed, rows=PACKED_ROWS, length=flags.seq_len)
        ids, logps = jax.device_get(topk(teacher.params, packed))
        for document, row, begin in placed:
            prompt, positions = document.prompt_length, packed.target_positions[row]
            own = row, (positions >= begin + prompt) & (positions < begin + len(document.tokens))
            stored = {"tokens": document.tokens[prompt:], "temperature": temperature}
            yield stored | {"top_ids": ids[own].tolist(), "top_logps": logps[own].tolist()}
        documents = documents[len(placed) :]

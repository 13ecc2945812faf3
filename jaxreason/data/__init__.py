"""Data of supervised training: JSONL files, packing, selection among samples."""

from jaxreason.data.jsonl import (
    PreferencePair,
    TeacherSample,
    load_preference_jsonl,
    load_sft_jsonl,
    load_teacher_jsonl,
)
from jaxreason.data.packing import filter_or_truncate, first_fit, pack, pack_teacher_topk
from jaxreason.data.selection import deduplicate, filter_correct, make_pairs, source

__all__ = [
    "PreferencePair", "TeacherSample", "deduplicate", "filter_correct", "filter_or_truncate", "first_fit",
    "load_preference_jsonl", "load_sft_jsonl", "load_teacher_jsonl", "make_pairs", "pack", "pack_teacher_topk",
    "source",
]  # fmt: skip

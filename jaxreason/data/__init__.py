"""What supervised training reads: JSONL files, packing, selection among samples."""

from jaxreason.data.jsonl import Pair, Taught, read_lessons, read_pairs, read_taught
from jaxreason.data.packing import fitted, pack, pack_top, place
from jaxreason.data.selection import accepted, paired, source, unfiltered

__all__ = [
    "Pair",
    "Taught",
    "accepted",
    "fitted",
    "pack",
    "pack_top",
    "paired",
    "place",
    "read_lessons",
    "read_pairs",
    "read_taught",
    "source",
    "unfiltered",
]

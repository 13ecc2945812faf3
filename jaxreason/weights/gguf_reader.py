"""The `gguf` library's reader, with metadata arrays read in one pass.

The library makes several array objects for each element of a metadata array, which takes seconds for a vocabulary of
262,144 tokens. Only that method is replaced; `field.contents()` and `reader.tensors` are the library's own.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFEndian, GGUFReader, GGUFValueType

from jaxreason.errors import InputError

ARRAY_HEADER_BYTES = 12
"""An array begins with the type of its elements (uint32) and their number (uint64)."""


def open_gguf(path: str | os.PathLike[str]) -> GGUFReader:
    """Returns a reader whose tensors are views of the memory-mapped file, read when they are used."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such GGUF file; give the path of a .gguf file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != b"GGUF":
            raise InputError(f"{path} is not a GGUF file: it begins with {magic!r}, not b'GGUF'; give a .gguf file")
        with np.errstate(over="raise"):  # sizes in a corrupt file may wrap around
            return _Reader(path)
    except InputError:
        raise
    except (ValueError, LookupError, ArithmeticError, RecursionError, OSError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{path} is truncated, corrupt or unreadable ({detail}); fetch the file again") from error


class _Reader(GGUFReader):
    # Offsets and counts are `Any`: the library passes them as Python and as NumPy integers.
    def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> np.ndarray:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > self.data.size:  # slicing would silently return less
            raise ValueError(f"{end} bytes are needed, the file has {self.data.size}")
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(self, orig_offs: Any, raw_type: Any) -> tuple[int, list, list, list]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        item_type = self._get(orig_offs, np.uint32)
        length = self._get(orig_offs + 4, np.uint64)
        kind, start, count = GGUFValueType(item_type[0]), orig_offs + ARRAY_HEADER_BYTES, int(length[0])
        if kind == GGUFValueType.STRING:
            items, end = self._strings(start, count)
        elif kind in self.gguf_scalar_to_np:
            values = self._get(start, self.gguf_scalar_to_np[kind], count).view(np.ndarray)
            items, end = list(values.reshape(-1, 1)), start + values.nbytes
        else:  # arrays of arrays: no published file has them
            return super()._get_field_parts(orig_offs, raw_type)
        types = [GGUFValueType.ARRAY, kind] if count else [GGUFValueType.ARRAY]
        return end - orig_offs, [item_type, length, *items], list(range(2, 2 + count)), types

    def _strings(self, start: int, count: int) -> tuple[list[np.ndarray], int]:
        """Returns the bytes of `count` length-prefixed strings and the offset behind the last."""
        raw = self.data.view(np.ndarray)
        buffer = raw.data
        order = "little" if self.endianess == GGUFEndian.LITTLE else "big"
        strings, offset = [], start
        for _ in range(count):
            begin = offset + 8
            offset = begin + int.from_bytes(buffer[begin - 8 : begin], order)
            if begin > len(buffer) or offset > len(buffer):
                raise ValueError(f"{max(begin, offset)} bytes are needed, the file has {len(buffer)}")
            strings.append(raw[begin:offset])
        return strings, offset

"""How a chunked matrix is read so that each chunk is decoded once: by bands of whole chunks."""

from __future__ import annotations

from streamclust.errors import InputError

_PIECE = 4 << 20
_MOST = 96 << 20  # bytes of a band; a reader holds two or three


def band(path: str, shape: tuple[int, int], chunks: tuple[int, int] | None, itemsize: int) -> tuple[int, bool]:
    """How many rows to read at a time; or, where True comes with it, how many columns: the chunks are tall.

    ``chunks`` is None where rows lie one after the other. Errors: InputError where the chunks are too large for both.
    """
    n, d = shape
    if chunks is None:
        return max(1, _PIECE // (d * itemsize)), False
    rows, columns = min(chunks[0], n), min(chunks[1], d)
    if rows * d * itemsize <= _MOST:
        return rows * max(1, _PIECE // (rows * d * itemsize)), False
    if columns * n * itemsize <= _MOST:
        return columns * max(1, _PIECE // (columns * n * itemsize)), True
    found = f"is stored in chunks of {rows:,} x {columns:,}"
    raise InputError(
        path, found, f"at most {_MOST >> 20} MiB across all columns", "write it with fewer rows in a chunk"
    )

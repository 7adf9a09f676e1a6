"""The table out of the store: Parquet and CSV as streams, a pickle where memory allows."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from streamclust.errors import BudgetError, InputError
from streamclust.store import table
from streamclust.store.store import Store

_STRING_BYTES = 120
FORMATS = (".parquet", ".csv", ".pickle")


def export(store: Store, out: Path | str, memory: int | None = None) -> int:
    """Write one row per image to ``out`` (.parquet, .csv or .pickle); returns the number of rows.

    The file appears whole or not at all.

    Raises
    ------
    InputError : another ending, or a folder that cannot be written. BudgetError : a pickle beyond ``memory`` bytes.
    """
    out = Path(out)
    writers: dict[str, Callable[[Store, Path], None]] = {".parquet": _parquet, ".csv": _csv, ".pickle": _pickle}
    writer = writers.get(out.suffix)
    if writer is None:
        raise InputError(out, f"ending {out.suffix!r} is not known", " ".join(FORMATS))
    if not store.batches:
        raise InputError(store.path, "the store is empty", "at least one batch", "ingest a case first")
    if writer is _pickle:
        _check_memory(store, out, memory)
    temporary = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        writer(store, temporary)
        temporary.replace(out)
    except OSError as error:
        raise InputError(out, f"cannot be written ({error.strerror or error})", "a writable place") from None
    finally:
        temporary.unlink(missing_ok=True)
    return store.n


def _check_memory(store: Store, out: Path, memory: int | None) -> None:
    about = table.layout(store)
    row = sum(_STRING_BYTES if field.type == "string" else 8 for field in table.schema(about))
    needed = 3 * row * store.n
    if memory is not None and needed > memory:
        found = f"a pickle of {store.n:,} rows takes about {needed:,} bytes of memory"
        raise BudgetError(out, found, f"at most {memory:,} (--memory)", "export to .parquet, which streams")


def _parquet(store: Store, out: Path) -> None:
    import pyarrow.parquet as pq

    about = table.layout(store)
    with pq.ParquetWriter(out, table.schema(about), compression="zstd") as writer:
        for batch, start, stop in table.blocks(store):
            writer.write_table(table.block(store, about, batch, start, stop))


def _csv(store: Store, out: Path) -> None:
    import pyarrow.csv as pc

    about = table.layout(store)
    options = pc.WriteOptions(quoting_style="needed")
    with pc.CSVWriter(out, table.schema(about), write_options=options) as writer:
        for batch, start, stop in table.blocks(store):
            writer.write_table(table.block(store, about, batch, start, stop))


def _pickle(store: Store, out: Path) -> None:
    store.labels().compute(scheduler="synchronous").reset_index(drop=True).to_pickle(out)

"""One row per image: path, batch, metadata, and what the newest model of each role says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamclust.evidence import sentence
from streamclust.planning import LABEL_ROWS
from streamclust.store.entries import Entry
from streamclust.store.store import Batch, Store
from streamclust.store.traces import FORGOTTEN

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    import pyarrow as pa

NO_VALUE = -2
BLOCK = LABEL_ROWS
REASON = "reason"


@dataclass(frozen=True)
class Column:
    """An exported column: its name, its kind (int, float, bool, string or reason), the role and array behind it."""

    name: str
    kind: str
    role: str
    array: str


@dataclass(frozen=True)
class Layout:
    """The table's columns, and for each (role, batch) the published labels."""

    metadata: dict[str, str]
    columns: tuple[Column, ...]
    sources: dict[tuple[str, str], str]


_ARROW = {"int64": "int64", "float64": "double", "string": "string", "int": "int32", "float": "float", "bool": "bool"}


def layout(store: Store) -> Layout:
    """What :func:`block` will hold, from the manifest alone."""
    metadata: dict[str, str] = {}
    for batch in store.batches:
        for name, kind in batch.entry.attributes["columns"].items():
            metadata[name] = kind if metadata.get(name, kind) == kind else "string"
    newest: dict[str, str] = {}
    sources: dict[tuple[str, str], str] = {}
    columns: dict[str, dict[str, Column]] = {}
    for entry in store.snapshot.of_kind("labels").values():
        newest[entry.attributes["role"]] = entry.attributes["model"]
    for name, entry in store.snapshot.of_kind("labels").items():
        role = entry.attributes["role"]
        if entry.attributes["model"] == newest[role]:
            sources[role, entry.attributes["batch"]] = name
            columns.setdefault(role, {}).update(_columns(role, entry))
    ordered = [c for role in sorted(columns, key=_role_order) for c in columns[role].values()]
    return Layout(metadata, tuple(ordered), sources)


def _role_order(role: str) -> tuple[int, str]:
    descriptor, _, kind = role.partition("/")
    return {"kmeans": 0, "strangeness": 1, "": 2, "map": 3}.get(kind, 0), descriptor


def _columns(role: str, entry: Entry) -> dict[str, Column]:
    kinds = {"i": "int", "f": "float", "b": "bool"}
    found = {}
    for array, name in entry.attributes["columns"].items():
        kind = REASON if array == REASON else kinds[entry.arrays[array].dtype[0]]
        found[name] = Column(name, kind, role, array)
    return found


def block(store: Store, about: Layout, batch: Batch, start: int, stop: int) -> pa.Table:
    """Rows ``start .. stop`` of a batch as an Arrow table, without forgotten ones."""
    import pyarrow as pa

    n = stop - start
    values = [
        pa.array(store.read(batch.name, "images/path", start, stop).astype(object), pa.string()),
        pa.array([batch.id] * n, pa.string()),
    ]
    for name, kind in about.metadata.items():
        values.append(_metadata(store, batch, name, kind, start, stop))
    for column in about.columns:
        source = about.sources.get((column.role, batch.name))
        values.append(_labels(store, source, column, start, stop))
    table = pa.Table.from_arrays(values, schema=schema(about))
    if not batch.forgotten:
        return table
    return table.filter(pa.array([path != FORGOTTEN for path in values[0].to_pylist()]))


def schema(about: Layout) -> pa.Schema:
    """The Arrow schema of every block."""
    import pyarrow as pa

    kinds = [_ARROW[kind] for kind in about.metadata.values()]
    fields = [("path", "string"), ("batch", "string"), *zip(_metadata_names(about), kinds, strict=True)]
    fields += [(c.name, _ARROW.get(c.kind, "string")) for c in about.columns]
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in fields])


def _metadata_names(about: Layout) -> list[str]:
    """Exported names of the metadata columns; one that a column of ours bears is told apart by ``_given``."""
    taken = {"path", "batch", *(column.name for column in about.columns)}
    return [name if name not in taken else f"{name}_given" for name in about.metadata]


def _metadata(store: Store, batch: Batch, name: str, kind: str, start: int, stop: int) -> pa.Array:
    import pyarrow as pa

    if name not in batch.entry.attributes["columns"]:
        return pa.nulls(stop - start, pa.type_for_alias(_ARROW[kind]))
    values = store.read(batch.name, f"images/{name}", start, stop)
    if kind == "string":
        return pa.array([str(value) for value in values.tolist()], pa.string())
    return pa.array(values, mask=np.isnan(values) if kind == "float64" else None)


def _labels(store: Store, source: str | None, column: Column, start: int, stop: int) -> pa.Array:
    import pyarrow as pa

    kind = pa.type_for_alias(_ARROW.get(column.kind, "string"))
    if source is None:
        return pa.nulls(stop - start, kind)
    if column.kind == REASON:
        return pa.array(reasons(store, source, start, stop), kind)
    values = _by_id(store, source, column.array, store.read(source, column.array, start, stop))
    return pa.array(values, kind, mask=_missing(values))


def _by_id(store: Store, source: str, array: str, values: NDArray[Any]) -> NDArray[Any]:
    """Labels as the ids that stay over refits, where the model has such; arrays hold positions."""
    ids = store.snapshot.entries[store.snapshot.entries[source].attributes["model"]].attributes.get("ids", {})
    if array not in ids:
        return values
    return np.where(values >= 0, np.asarray(ids[array], values.dtype)[np.maximum(values, 0)], values)


def reasons(store: Store, source: str, start: int, stop: int) -> list[str]:
    """The strongest evidence of each row in words; ``source`` names the fused labels of a batch."""
    model = store.snapshot.entries[source].attributes["model"]
    names = store.snapshot.entries[model].attributes["descriptors"]
    parts = [
        store.read(source, f"reason_{part}", start, stop).tolist()
        for part in ("code", "value", "quantile", "descriptor")
    ]
    return [sentence(code, value, quantile, names[which]) for code, value, quantile, which in zip(*parts, strict=True)]


def _missing(values: NDArray[Any]) -> NDArray[np.bool_] | None:
    if values.dtype.kind == "b":
        return None
    return np.asarray(values == NO_VALUE if values.dtype.kind == "i" else np.isnan(values))


def blocks(store: Store) -> Iterator[tuple[Batch, int, int]]:
    """Row ranges over all batches, in the snapshot's order."""
    for batch in store.batches:
        for start in range(0, batch.n, BLOCK):
            yield batch, start, min(batch.n, start + BLOCK)


def frame(store: Store) -> dd.DataFrame:
    """The table as a dask dataframe, a partition per block."""
    import dask.dataframe as dd

    about = layout(store)
    parts = list(blocks(store))
    meta = _to_pandas(schema(about).empty_table())
    return dd.from_map(_partition, parts, store=store, about=about, meta=meta)


def _partition(part: tuple[Batch, int, int], store: Store, about: Layout) -> pd.DataFrame:
    return _to_pandas(block(store, about, *part))


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype("pyarrow")}
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get)
    return frame

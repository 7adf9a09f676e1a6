"""The table out of a store: columns, nulls where there is no value, one schema over unlike batches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from streamclust.errors import BudgetError, InputError
from streamclust.exporting import export
from streamclust.store import table
from streamclust.store.store import create
from tests.cases import matrices, metadata, spoil, work, write_case
from tests.faults import no_fsync

PER_DESCRIPTOR = ("kmeans", "fine", "distance", "hdbscan", "optics", "outlier_score", "x", "y")
OF_ALL = ("path", "batch", "outlier_score", "outlier", "outlier_reason")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two batches with unlike metadata; the second lacks a descriptor; two columns have names of ours."""
    folder = tmp_path_factory.mktemp("export")
    of = matrices(41, 300, {"a": 8, "b": 6})
    of["a"] = spoil(of["a"], [7])
    first = metadata(200) | {"speed": [i / 2 for i in range(200)], "lane": list(range(200)), "batch": ["x"] * 200}
    second = {"camera": ['a "quoted", one'] * 100, "lane": ["left"] * 100, "a_kmeans": [1] * 100}
    with no_fsync():
        work(folder / "s", write_case(folder / "one", {d: X[:200] for d, X in of.items()}, first))
        return work(folder / "s", write_case(folder / "two", {"a": of["a"][200:]}, second)).store


@pytest.fixture(scope="module")
def parquet(store):
    out = store.path.parent / "out.parquet"
    assert export(store, out) == 300
    return pq.read_table(out)


def test_columns(parquet):
    names = parquet.column_names
    assert len(names) == len(set(names))
    assert names[:2] == ["path", "batch"]
    assert set(names) >= {*OF_ALL, *(f"{d}_{what}" for d in ("a", "b") for what in PER_DESCRIPTOR)}
    assert set(names) >= {"camera", "time", "speed", "lane", "batch_given", "a_kmeans_given"}
    kinds = {
        "a_kmeans": pa.int32(),
        "outlier": pa.bool_(),
        "a_x": pa.float32(),
        "speed": pa.float64(),
        "lane": pa.string(),
    }
    assert {name: parquet.schema.field(name).type for name in kinds} == kinds


def test_nulls_where_there_is_no_value(parquet):
    frame = parquet.to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get)
    assert frame["a_kmeans"].isna().to_numpy().nonzero()[0].tolist() == [7]
    assert frame["b_kmeans"].isna().to_numpy().tolist() == [False] * 200 + [True] * 100
    assert frame["speed"].isna().to_numpy().tolist() == [False] * 200 + [True] * 100
    assert (frame["lane"].iloc[[3, 250]] == ["3", "left"]).all()
    assert (frame["batch"].iloc[[0, 299]] == ["one", "two"]).all()
    assert frame["a_kmeans"].min() == 0
    assert frame["a_optics"].min() >= -1
    assert frame["outlier_score"].isna().sum() == 1
    assert frame["outlier"].notna().all()
    assert not np.isnan(frame["a_x"].dropna()).any()


def test_every_block_has_the_schema(store, parquet):
    about = table.layout(store)
    for batch, start, stop in table.blocks(store):
        block = table.block(store, about, batch, start, stop)
        assert block.schema == parquet.schema
        assert block.num_rows == stop - start


def test_the_three_formats_say_the_same(store, parquet, tmp_path):
    export(store, tmp_path / "o.csv")
    convert = pyarrow.csv.ConvertOptions(column_types=parquet.schema, strings_can_be_null=True)
    csv = pyarrow.csv.read_csv(tmp_path / "o.csv", convert_options=convert)
    assert csv.equals(parquet)
    export(store, tmp_path / "o.pickle")
    assert pa.Table.from_pandas(pd.read_pickle(tmp_path / "o.pickle"), schema=parquet.schema).equals(parquet)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.csv", "o.pickle"]


def test_a_pickle_beyond_the_memory_names_parquet(store, tmp_path):
    with pytest.raises(BudgetError, match="parquet"):
        export(store, tmp_path / "o.pickle", memory=1000)
    export(store, tmp_path / "o.csv", memory=1000)
    assert [p.name for p in tmp_path.iterdir()] == ["o.csv"]


def test_a_failed_export_leaves_what_was_there(store, tmp_path, monkeypatch):
    out = tmp_path / "o.parquet"
    out.write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table, "block", full)
    with pytest.raises(InputError, match="No space left"):
        export(store, out)
    assert out.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["o.parquet"]


def test_what_cannot_be_exported(store, tmp_path):
    with pytest.raises(InputError, match=r"ending '\.xlsx' is not known"):
        export(store, tmp_path / "o.xlsx")
    with pytest.raises(InputError, match="cannot be written"):
        export(store, tmp_path / "nowhere" / "o.csv")
    with pytest.raises(InputError, match="the store is empty"):
        export(create(tmp_path / "new"), tmp_path / "o.csv")

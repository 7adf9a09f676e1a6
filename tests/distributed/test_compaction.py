"""What a cluster merges is to the byte what one process merges."""

from __future__ import annotations

import shutil

import pytest

from streamclust.blocks import Serial
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store.compaction import compact
from streamclust.store.store import open_store
from tests.cases import job_on, matrices, metadata, write_case
from tests.distributed.cluster import run
from tests.faults import contents, no_fsync


def shards(store):
    """The bytes of every file of every pack."""
    packs = [store.path / "data" / entry.path for entry in store.snapshot.of_kind("pack").values()]
    files = [(pack, file) for pack in packs for file in sorted(pack.rglob("*")) if file.is_file()]
    return [(file.relative_to(pack).as_posix(), file.read_bytes()) for pack, file in files]


@pytest.mark.slow
def test_packs_are_the_same(running, toml, tmp_path):
    with no_fsync():
        for seed, n in enumerate((50, 70)):
            case = write_case(tmp_path / f"day-{seed}", matrices(seed, n, {"a": 5}), metadata(n))
            ingest(job_on(tmp_path / "s"), open_case(case))
        shutil.copytree(tmp_path / "s", tmp_path / "other")
        other = open_store(tmp_path / "other")
        assert compact(other, Serial()).packs == 1
    code, _, err = run(tmp_path, "compact", "s", *toml, "--scheduler", running.address, "--quiet")
    assert (code, err) == (0, "")
    store = open_store(tmp_path / "s")
    assert shards(store) == shards(other)
    merged, wanted = ({n: e for n, e in contents(s).items() if e[0] == "batch"} for s in (store, other))
    assert merged == wanted

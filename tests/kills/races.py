"""Two processes that write into one store and one that reads it: ``python -m tests.kills.races SEED ROUNDS``."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

from streamclust import pipeline
from streamclust.blocks import Serial
from streamclust.errors import ConflictError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store import arrays
from streamclust.store.store import open_store
from streamclust.store.verify import verify
from tests.cases import job_on, matrices, write_case
from tests.faults import assert_tidy, no_fsync
from tests.kills.laps import start
from tests.kills.scenes import SETTINGS, prepare

DAYS = ("2026-02-01", "2026-02-02")
BUSY = 7  # the exit code of a writer who was told to try again
POINTS = 300  # about as many as a writer passes


def write(store: Path, case: Path) -> None:
    """Bring a day in and label it, or be told to try again."""
    try:
        job = job_on(store, SETTINGS)
        ingest(job, open_case(case))
        pipeline.predict(job)
    except ConflictError as error:
        sys.exit(BUSY if "try again" in str(error) else str(error))


def read(store: Path, until: Path) -> None:
    """Open the store again and again: a batch is there with its rows and moments, or not at all."""
    until.with_suffix(".reading").touch()  # the point at which it stands until the writers are there
    last, stops = 0, False
    while not stops:
        stops = until.exists()
        arrays.forget_open_arrays()
        seen = open_store(store)
        assert seen.snapshot.number >= last
        last = seen.snapshot.number
        names = {batch.name for batch in seen.batches}
        for batch in seen.batches:
            valid = seen.read(batch.name, "valid/a")
            assert len(seen.read(batch.name, "descriptors/a")) == len(valid) == batch.n
            assert int(seen.read(batch.name, "moments/a/n")[0]) == int(valid.sum())
        for name, entry in seen.snapshot.of_kind("labels").items():
            assert entry.attributes["batch"] in names
            assert entry.attributes["model"] in seen.snapshot.entries
            for array in entry.arrays:
                assert len(seen.read(name, array)) == entry.arrays[array].shape[0]


def table(store: Path) -> list[str]:
    """Everything that is said of every row, whichever batch came first."""
    arrays.forget_open_arrays()
    return sorted(open_store(store).labels().compute().to_csv(index=False).splitlines())


def race(place: Path, store: Path, rng: random.Random) -> int:
    """One round: each stands still at a point while the other goes on; returns how many were told to try again."""
    shutil.copytree(place / "fitted", store)
    until = store.with_suffix(".stop")
    cases = [place / "days" / day for day in rng.sample(DAYS, 2)]
    reader = start(lambda: read(store, until), until.with_suffix(".reading"), 1)
    writers = [start(lambda case=case: write(store, case), store, rng.randrange(1, POINTS)) for case in cases]
    reader.release()
    rng.shuffle(writers)
    if rng.random() < 0.5:
        codes = [writer.go_on() for writer in writers]  # one does all of its work while the other stands still
    else:
        for writer in writers:
            writer.release()
        codes = [writer.wait() for writer in writers]
    again = codes.count(BUSY)
    assert set(codes) <= {0, BUSY}, codes
    for case in cases:  # one who was told to try again does; another is told that there is nothing to do
        assert start(lambda case=case: write(store, case), store, -1).go_on() == 0
    until.touch()
    assert reader.wait() == 0
    return again


def main(seed: str, rounds: str) -> None:
    """So many rounds; says how many writers were told to try again."""
    rng, again = random.Random(int(seed)), 0
    with tempfile.TemporaryDirectory() as folder, no_fsync():
        place = Path(folder)
        prepare(place, ["fitted"])
        for i, day in enumerate(DAYS):
            write_case(place / "days" / day, matrices(20 + i, 20, {"a": 5}))
        shutil.copytree(place / "fitted", place / "one by one")
        for day in DAYS:
            assert start(lambda day=day: write(place / "one by one", place / "days" / day), place, -1).go_on() == 0
        wanted = table(place / "one by one")
        for k in range(int(rounds)):
            store = place / f"race-{k}"
            try:
                again += race(place, store, rng)
                assert table(store) == wanted
                opened = open_store(store)
                opened.sweep()
                assert_tidy(opened)
                found = verify(store, Serial())
                assert (found.damage, found.orphans, found.writers) == ((), (), 0), found
            except Exception as error:
                raise AssertionError(f"seed {seed}, round {k}: {error!r}") from error
            shutil.rmtree(store)
    print(again)


if __name__ == "__main__":
    main(*sys.argv[1:])

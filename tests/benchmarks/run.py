"""Our figures beside the peers', as Markdown on stdout: `python -m tests.benchmarks.run --help`."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.generator import write_reference_case
from tests.benchmarks.peers import TASKS, run_peer
from tests.benchmarks.tables import Result, Table, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Place:
    """An empty folder to write in, and the seconds after which a command is stopped."""

    scratch: Path
    timeout: float


PLOTS = Path("bench-plots")  # of the streams; kept
SHORT = 10.0  # seconds: what takes less is run three times and the fastest counts, as other processes only slow it

_MATHEMATICS = [sys.executable, "-m", "tests.benchmarks.ours"]
# Table -> row -> command. "{data}" stands for the pickle ("route": the case), "{scratch}" for a folder to write in,
# {k} and {p} for the table's own options. A last line of JSON like the peers' gives seconds and quality.
OURS: dict[str, dict[str, list[str]]] = {
    "pca": {"ours": [*_MATHEMATICS, "pca", "{data}", "d=2560", "p={p}"]},
    "kmeans": {
        "ours, 6 passes": [*_MATHEMATICS, "kmeans", "{data}", "d=100", "k={k}", "passes=6"],
        "ours, 12 passes": [*_MATHEMATICS, "kmeans", "{data}", "d=100", "k={k}", "passes=12"],
        "ours, 100 passes": [*_MATHEMATICS, "kmeans", "{data}", "d=100", "k={k}", "passes=100"],
        "ours in memory, 12 passes": [*_MATHEMATICS, "estimator", "{data}", "k={k}", "passes=12"],
        "ours in memory": [*_MATHEMATICS, "estimator", "{data}", "k={k}", "passes=100"],
    },
    "route": {"ours, everything stored": [*_MATHEMATICS, "route", "{data}"]},
    "store": {"ours, from the store": [*_MATHEMATICS, "store", "{data}", "k_max={k_max}"]},
    "reference": {"ours": [*_MATHEMATICS, "reference", "{data}"]},
}


def fastest(run: Callable[[], Result]) -> Result:
    """The result of a run, or the fastest of three where it is short."""
    first = run()
    again = [run() for _ in range(2)] if first.seconds < SHORT and not first.error else []
    return min(first, *again, key=lambda r: r.seconds) if again else first


def compare(title: str, task: str, data: Path, place: Place, case: Path | None = None, **options: float) -> Table:
    """All of ours and all peers on one task; `case`, if given, is what "{data}" names in our commands."""
    table = Table(title)
    for name, command in OURS[task].items():
        words = [word.format(data=case or data, scratch=place.scratch, **options) for word in command]
        table.add(name, fastest(partial(run_command, words, place.timeout)), ours=True)
    for peer in TASKS.get(task, {}):
        table.add(peer, fastest(partial(run_peer, task, peer, data, place.timeout, **options)))
    return table


def pca(place: Place, rows: int) -> Iterator[Table]:
    data = write_reference_case(place.scratch / "wide", rows, {"effnet": 2560}) / "descriptors" / "effnet.pickle"
    yield compare(f"PCA of {rows:,} x 2560, standardised, 488 components", "pca", data, place, p=488)


def kmeans(place: Place, rows: int) -> Iterator[Table]:
    data = write_reference_case(place.scratch / "reduced", rows, {"reduced": 100}) / "descriptors" / "reduced.pickle"
    for k in (40, 1000):
        yield compare(f"k-means of {rows:,} x 100, k = {k}", "kmeans", data, place, k=k)


def route(place: Place, rows: int) -> Iterator[Table]:
    case = write_reference_case(place.scratch / "route", rows, {"osnet": 512})
    title = f"from a pickle of {rows:,} x 512 to scored clusterings of k = 2 to 20"
    yield compare(title, "route", case / "descriptors" / "osnet.pickle", place, case=case)


def store(place: Place, rows: int) -> Iterator[Table]:
    case = write_reference_case(place.scratch / "store", rows, {"osnet": 512})
    title = f"from {rows:,} x 512 to scored clusterings of k = 2 to 12"
    yield compare(title, "store", case / "descriptors" / "osnet.pickle", place, case=case, k_max=12)


def growth(place: Place, rows: int) -> Iterator[Table]:
    """The same from as many rows and from ten times as many: the ratio of the times, and the peaks."""
    table = Table("from a store of n x 128 to scored clusterings of k = 2 to 12")
    for n in (rows, 10 * rows):
        case = write_reference_case(place.scratch / str(n), n, {"colour": 128})
        words = [word.format(data=case, k_max=12) for word in OURS["store"]["ours, from the store"]]
        table.add(f"ours, n = {n:,}", fastest(partial(run_command, words, place.timeout)), ours=True)
        shutil.rmtree(case)
    yield table


def reference(place: Place, rows: int) -> Iterator[Table]:
    case = write_reference_case(place.scratch / "reference", rows)
    yield compare(f"the whole job on {rows:,} x {{2560, 512, 128, 512}} within 2 GB", "reference", case, place)


def density(place: Place, rows: int) -> Iterator[Table]:
    words = ["density", f"--rows={rows}", f"--folder={place.scratch}", "--peer"]
    found = json.loads(_said(words))
    table = Table(
        f"zoomable maps of {rows:,} points, levels 0 to {found['zoom']}, {found['tiles']:,} tiles of all layers"
    )
    steps = {"first": "ours, every tile", "again": "ours, nothing new", "day": "ours, a day of 4,000 more"}
    for step, name in steps.items():
        about = found[step]
        quality = {"CPU s": about["cpu_s"], "drawn": about["said"]}
        table.add(name, Result(about["seconds"], about["peak_mb"] * 2**20, quality), ours=True)
    peer = found["datashader"]
    for step, name in {"picture": "datashader, one picture", "tiles": "datashader, densities only"}.items():
        quality = {"CPU s": peer[f"{step}_cpu_s"]} | ({"tiles": peer["tiles"]} if step == "tiles" else {})
        table.add(name, Result(peer[f"{step}_s"], peer["peak_mb"] * 2**20, quality))
    yield table


def stream(_place: Place, days: int) -> Iterator[str]:
    """One stream through the program, day by day; then the 20 streams that are held back, through its tasks alone."""
    plots = f"--plots={PLOTS}"
    yield _said(["replay", f"--days={days}", plots])
    yield _said(["replay", f"--days={days}", plots, "--held-back", "--fast", "--jobs=2"])


def recovery(_place: Place, _rows: int) -> Iterator[str]:
    """Known groups found on the real sets, or nothing where these are not."""
    yield _said(["recovery"])


def _said(words: list[str]) -> str:
    """What another benchmark prints."""
    command = [sys.executable, "-m", f"tests.benchmarks.{words[0]}", *words[1:]]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


TABLES = {
    "pca": (pca, 100_000),
    "kmeans": (kmeans, 200_000),
    "route": (route, 100_000),
    "store": (store, 416_314),
    "growth": (growth, 400_000),
    "reference": (reference, 416_314),
    "density": (density, 10_000_000),
    "stream": (stream, 200),
    "recovery": (recovery, 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(TABLES), help="a table; all of them where none is named"
    )
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a command is stopped")
    parser.add_argument("--rows", type=int, help="rows of the data, days of the streams; each table has its own")
    parser.add_argument("--scratch", type=Path, help="an existing folder with room for the data; it is emptied again")
    arguments = parser.parse_args()
    for name in arguments.only or TABLES:
        make, rows = TABLES[name]
        scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
        try:
            for table in make(Place(scratch, arguments.timeout), arguments.rows or rows):
                print(table, end="\n\n", flush=True)
        finally:
            shutil.rmtree(scratch)


if __name__ == "__main__":
    main()

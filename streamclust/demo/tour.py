"""The whole program on the drawn case, and how well it understood what was drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import assign
from streamclust.config import Settings
from streamclust.demo.case import draw_case
from streamclust.demo.truth import Agreement, agreement_with_truth, read_truth
from streamclust.errors import InputError
from streamclust.exporting import export
from streamclust.journal import Journal, Listener
from streamclust.pipeline import RunResult, run
from streamclust.stages.sources import reduced_name
from streamclust.store.store import Store
from streamclust.terminal import columns

_CASE = re.compile(r"case-\d+-\d+")
_NEW = "name a new one: streamclust demo FOLDER"
TRUE_K = {"type": 5, "view": 4, "colour": 7}


@dataclass(frozen=True)
class Tour:
    """What the demo found: the run, its agreement with the truth, and both as plain values and as text."""

    result: RunResult
    agreement: list[Agreement]
    table: Path

    @property
    def facts(self) -> dict[str, Any]:
        """For ``--json``."""
        found = {f"{a.question}: {a.measure}": {"column": a.column, "value": a.value} for a in self.agreement}
        return self.result.summary() | {"agreement": found, "table": str(self.table)}

    @property
    def text(self) -> str:
        """For a person."""
        rows = [(a.question, a.measure, a.column, f"{a.value:.3f}") for a in self.agreement]
        found = columns(("what was drawn", "measure", "column", "value"), rows)
        return f"\n{found}\n\ntable:  {self.table}\nreport: {self.result.report}"


def tour(folder: Path, n_images: int, seed: int, settings: Settings, listener: Listener) -> Tour:
    """Draw a case into ``folder``, run everything on it, export the table, compare with the truth.

    Raises
    ------
    InputError : the folder holds something and no demo made it.
    """
    folder, journal = folder.absolute(), Journal(listener)
    _refuse_foreign(folder)
    case = folder / f"case-{seed}-{n_images}"
    if not (case / "truth.csv").is_file():
        with journal.stage("draw pictures", n_images):
            draw_case(case, n_images=n_images, seed=seed)
    result = run(folder / "traffic.store", case, settings, listener=listener)
    table = folder / "labels.parquet"
    export(result.store, table)
    truth = read_truth(case / "truth.csv")
    return Tour(result, agreement_with_truth(truth, _columns(result.store, table)), table)


def _refuse_foreign(folder: Path) -> None:
    """The first thing that a demo makes in its folder is that of its case."""
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "is a file", "a folder for the demo", _NEW)
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    if names and not any(map(_CASE.fullmatch, names)):
        raise InputError(folder, f"holds {min(names)}, which no demo made", "an empty folder, or that of a demo", _NEW)


def _columns(store: Store, table: Path) -> Mapping[str, NDArray[Any]]:
    """The exported labels and scores, and k-means labels at the true numbers of types, views and colours."""
    import pyarrow.parquet as pq

    frame = pq.read_table(table).to_pandas()
    kept = [c for c in frame.columns if c.endswith("_fine") or c == "outlier_score"]
    found = {"path": frame["path"].to_numpy(str)} | {c: frame[c].fillna(-1).to_numpy() for c in kept}
    models = {e.attributes["descriptor"]: n for n, e in store.snapshot.of_kind("model").items() if "ks" in e.attributes}
    for descriptor, model in models.items():
        for k in set(TRUE_K.values()) & set(store.snapshot.entries[model].attributes["ks"]):
            found[f"{descriptor}_k{k}"] = _labels_at(store, model, k)
    return found


def _labels_at(store: Store, model: str, k: int) -> NDArray[np.int32]:
    projection = store.snapshot.entries[model].attributes["parents"][0]
    centers = store.read(model, f"sweep/{k:05d}/centers")
    return np.concatenate([assign(store.read(reduced_name(projection, b), "Z"), centers)[0] for b in store.batches])

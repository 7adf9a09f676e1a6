"""How far the clusterings of every descriptor and algorithm agree at every k, from one pass over the reduced rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import tiles
from streamclust.cluster.joint import MOST, SCORES, joint_block, mirrored, score_row, thin
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.stages import hierarchies
from streamclust.stages.compare import clusterings
from streamclust.stages.labels import NO_VALUE, labels_name, up_to_date
from streamclust.stages.reduced import read_valid
from streamclust.stages.sources import reduced_name
from streamclust.store import arrays
from streamclust.store.rows import Rows
from streamclust.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

KIND, ROLE = "comparison", "agreement"
Joint = NDArray[np.int64]
Cut = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Labeler:
    """How rows get the labels of all clusterings of one descriptor, in this order.

    Attributes
    ----------
    centers : of k-means, a set for each k.
    stored : arrays of labels that are there already.
    micro, cuts : the centres of micro-clusters, and the cluster of each of them, for each k.
    """

    centers: Sequence[NDArray[np.float32]]
    stored: Sequence[str]
    micro: NDArray[np.float32] | None
    cuts: Sequence[Cut]

    def __len__(self) -> int:
        return len(self.centers) + len(self.stored) + len(self.cuts)


@dataclass(frozen=True)
class Asked:
    """What is compared: clusterings in force by name, and of each the k with their numbers of clusters."""

    models: Mapping[str, str]
    ks: Mapping[str, Mapping[int, int]]
    chosen: Mapping[str, int]
    thinned: bool

    @property
    def columns(self) -> list[tuple[str, int, int]]:
        """Name, k and clusters of each clustering."""
        return [(name, k, size) for name, curve in self.ks.items() for k, size in curve.items()]


def compare_every_k(job: Job, models: Mapping[str, str]) -> str | None:
    """Contingency, ARI and AMI of all pairs of (descriptor, algorithm, k); returns the object's name.

    ``models`` maps descriptors to k-means models. K-means and the tree are compared at each k that they were tried at,
    the mixture at its own, as only the best one is kept. Labels are worked out again block by block and never stored.
    Where all have more than MOST clusters together, some k are left out; where the chosen ones alone do, or fewer than
    two clusterings are there, nothing is made, and what was made before is taken out.
    """
    store, asked = job.store, _asked(job.store, clusterings(job, models))
    sizes = [size for _, _, size in asked.columns]
    if models and not sizes:
        job.journal.warn(f"not every k was compared: all chosen clusterings have more than {MOST:,} clusters together")
    if len(sizes) < 2:
        _discard(store)
        return None
    addresses = _addresses(store, asked, models)
    there = sorted({(rows.batch, *sorted(rows.arrays)) for rows in addresses})
    wanted = fingerprint(ROLE, sorted(asked.models.items()), [(b.name, b.digest) for b in store.batches], there)
    known = up_to_date(job, KIND, ROLE, wanted)
    if known is not None:
        return known
    with job.journal.stage("compare every k", sum(map(len, addresses))):
        labelers = {d: _labeler(store, d, asked) for d in sorted(models)}
        joint = job.executor.fold(add_joint, addresses, np.add, labelers, sizes, run=1)
        scored = job.executor.map(score_row, range(len(sizes)), joint, sizes)
        return _publish(job, asked, joint, mirrored(scored, joint, sizes), wanted)


def _discard(store: Store) -> None:
    """Take out what was compared of models before, which would else pass for what is in force."""
    stale = tuple(n for n, e in store.snapshot.of_kind(KIND).items() if e.attributes["role"] == ROLE)
    if stale:
        store.publish("discard every k", {}, remove=stale)


def _publish(job: Job, asked: Asked, joint: Joint, scores: Mapping[str, NDArray[Any]], wanted: str) -> str:
    store = job.store
    name = f"models/{ROLE}-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, KIND, wanted)
    draft.write("joint", joint, compress=True)
    for key, values in scores.items():
        draft.write(key, values)
    attributes = {
        "role": ROLE,
        "parents": sorted(asked.models.values()),
        "clusterings": [list(column) for column in asked.columns],
        "chosen": dict(asked.chosen),
        "thinned": asked.thinned,
    }
    store.publish("compare every k", {name: (draft, draft.entry(attributes, {}))})
    return name


def _asked(store: Store, every: Mapping[str, str]) -> Asked:
    """Every k of every clustering in force, thinned to what is compared."""
    curves, chosen = dict[str, dict[int, int]](), dict[str, int]()
    for name, model in every.items():
        about = store.snapshot.entries[model].attributes
        chosen[name] = int(about.get("k", about["clusters"]))
        if about["algorithm"] == "kmeans":
            shapes = store.snapshot.entries[model].arrays
            curves[name] = {k: shapes[f"sweep/{k:05d}/centers"].shape[0] for k in about["ks"]}
        elif about["algorithm"] == "agglomerative":
            curves[name] = {k: k for k in hierarchies.cut_at(store, model)}
        else:
            curves[name] = {chosen[name]: int(about["clusters"])}
    kept = thin(curves, chosen)
    ks = {name: {k: curves[name][k] for k in each} for name, each in kept.items()}
    return Asked(every, ks, chosen, sum(map(len, ks.values())) < sum(map(len, curves.values())))


def _labeler(store: Store, descriptor: str, asked: Asked) -> Labeler:
    kmeans, mixture, tree = (f"{descriptor}/{name}" for name in ("kmeans", "mixture", "agglomerative"))
    centers = [store.read(asked.models[kmeans], f"sweep/{k:05d}/centers") for k in asked.ks[kmeans]]
    stored = [mixture] if mixture in asked.models else []
    if tree not in asked.models:
        return Labeler(centers, stored, None, ())
    micro, cuts = store.read(asked.models[tree], "micro/centers"), hierarchies.cuts(store, asked.models[tree])
    return Labeler(centers, stored, micro, [cuts[k] for k in asked.ks[tree]])


def _addresses(store: Store, asked: Asked, models: Mapping[str, str]) -> list[Rows]:
    """Reduced rows by descriptor, and stored labels by clustering, of every batch that has any."""
    found = list[Rows]()
    entries = store.snapshot.entries
    projections = {d: entries[model].attributes["parents"][0] for d, model in sorted(models.items())}
    for batch in store.batches:
        names = {d: reduced_name(projection, batch) for d, projection in projections.items()}
        paths = {d: store.array(name, "Z") for d, name in names.items() if name in entries}
        if not paths:
            continue
        step = min(map(arrays.rows_per_chunk, paths.values()))
        for d in list(paths):
            labels = labels_name(asked.models.get(mixture := f"{d}/mixture", "/"), batch.name)
            if labels in entries:
                paths[mixture] = store.array(labels, "label")
        found += store.rows(batch, step, paths)
    return found


def add_joint(state: Joint | None, rows: Rows, labelers: Mapping[str, Labeler], sizes: Sequence[int]) -> Joint:
    """One block's labels under every clustering, and their joint counts."""
    labels = np.full((len(sizes), len(rows)), NO_VALUE, np.int16)
    start = 0
    for descriptor, labeler in labelers.items():
        if descriptor in rows.arrays:
            label_block(rows, descriptor, labeler, labels[start : start + len(labeler)])
        start += len(labeler)
    found = joint_block(labels, sizes)
    return found if state is None else state + found


def label_block(rows: Rows, descriptor: str, labeler: Labeler, out: NDArray[np.int16]) -> None:
    """Labels of a block under all clusterings of a descriptor that it has : (m, n); rows without stay as they are."""
    Z, valid = read_valid(rows, descriptor)
    sets = [*labeler.centers, *([] if labeler.micro is None else [labeler.micro])]
    nearest = np.empty((len(sets), len(Z)), np.int16)
    for tile in tiles(Z, sets):
        nearest[list(tile.sets), tile.rows] = tile.labels
    k = len(labeler.centers)
    out[:k, valid] = nearest[:k]
    for label, name in zip(out[k:], labeler.stored, strict=False):
        if name in rows.arrays:
            label[:] = rows.read(name)
    for label, cut in zip(out[len(labeler) - len(labeler.cuts) :], labeler.cuts, strict=True):
        label[valid] = cut[nearest[-1]]


def agreement(store: Store) -> pd.DataFrame:
    """All pairs of clusterings, each a descriptor and algorithm at a k: rows that both label, ARI and AMI.

    Columns a, k_a, b, k_b, rows, adjusted_rand, adjusted_mutual_info. The last two are NaN where no row has both.

    Raises
    ------
    InputError : nothing was compared yet.
    """
    import pandas as pd

    name = store.snapshot.newest(KIND, ROLE)
    if name is None:
        raise InputError(store.path, "no clusterings were compared yet", "a fitted store", "streamclust fit STORE")
    names, ks, _ = zip(*store.snapshot.entries[name].attributes["clusterings"], strict=True)
    i, j = np.triu_indices(len(names), 1)
    a, b = np.array(names), np.array(ks)
    scores = {key: store.read(name, key)[i, j] for key in SCORES}
    return pd.DataFrame({"a": a[i], "k_a": b[i], "b": a[j], "k_b": b[j], **scores})

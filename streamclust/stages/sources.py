"""Where the rows of a descriptor are read: its own array of a batch or, for the mix, what others were reduced to.

Under a further scaler a descriptor is one more, ``osnet@robust``: the same rows with a projection of their own. It is
clustered and compared; outliers, maps, the consensus and alarms are of the primary ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import decomposition as pca
from streamclust.config import AT, MIX
from streamclust.preprocessing import Affine
from streamclust.store import arrays
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store

OWN = "X"
Weights = Mapping[str, float]
Sampled = tuple[NDArray[np.int64], NDArray[Any]]  # numbers in the batch, and rows


@dataclass(frozen=True)
class Source:
    """A descriptor's rows before they are scaled and reduced.

    parts : of the mix, by descriptor, its projection and what its reduced rows are multiplied by; else empty.
    """

    descriptor: str
    parts: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def weights(self) -> Weights:
        """What `read` needs to know."""
        return {_key(d): weight for d, (_, weight) in self.parts.items()}

    @property
    def needs(self) -> tuple[str, ...]:
        """The descriptors that came in and that it is made of."""
        return tuple(self.parts) or (came_as(self.descriptor),)

    def has(self, batch: Batch) -> bool:
        """Whether a batch has all of it."""
        return all(batch.has(name) for name in self.needs)

    def features(self, store: Store) -> int:
        """Columns of its rows."""
        if not self.parts:
            return store.descriptors[self.needs[0]]
        return sum(int(store.snapshot.entries[name].attributes["components"]) for name, _ in self.parts.values())

    def rows(self, store: Store, batches: Sequence[Batch]) -> list[Rows]:
        """Addresses of its stored blocks."""
        found: list[Rows] = []
        for batch in batches:
            if self.parts:
                paths = {_key(d): store.array(reduced_name(name, batch), "Z") for d, (name, _) in self.parts.items()}
            else:
                paths = {OWN: store.array(batch.name, f"descriptors/{self.needs[0]}")}
            found += store.rows(batch, min(map(arrays.rows_per_chunk, paths.values())), paths)
        return found

    def sample(self, store: Store, batch: str, positions: NDArray[np.int64]) -> Iterator[Sampled]:
        """The finite ones of the rows at these positions of a batch's stored sample, a stored chunk at a time."""
        paths = {d: store.array(batch, f"sample/{d}") for d in self.needs}
        frames = {d: load_projection(store, name) for d, (name, _) in self.parts.items()}
        numbers, step = store.read(batch, "sample/rows"), min(map(arrays.rows_per_chunk, paths.values()))
        for start in range(0, len(numbers), step):
            here = positions[(positions >= start) & (positions < start + step)]
            stop = min(start + step, len(numbers))
            X = {d: arrays.read_rows(path, start, stop)[here - start] for d, path in paths.items()}
            valid = np.logical_and.reduce([finite(rows) for rows in X.values()])
            X = {d: rows[valid] for d, rows in X.items()}
            reduced = {_key(d): pca.transform(frame, X[d]).rows for d, frame in frames.items()}
            yield numbers[here[valid]], _joined(reduced, self.weights) if self.parts else X[self.needs[0]]


def of_projection(store: Store, name: str) -> Source:
    """What a stored projection reduces."""
    about = store.snapshot.entries[name].attributes
    return Source(about["descriptor"], {d: (parent, weight) for d, parent, weight in about.get("parts", ())})


def read(rows: Rows, weights: Weights) -> Iterator[tuple[int, NDArray[Any]]]:
    """An address's rows as they come from the source, a stored chunk at a time: where each starts, and its rows."""
    names = list(weights) or [OWN]
    step = min(arrays.rows_per_chunk(rows.arrays[name]) for name in names)
    for start in range(rows.start, rows.stop, step):
        X = {name: arrays.read_rows(rows.arrays[name], start, min(start + step, rows.stop)) for name in names}
        yield start - rows.start, _joined(X, weights) if weights else X[OWN]


def _key(descriptor: str) -> str:
    return f"{MIX}/{descriptor}"


def finite(X: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have a value in every column : (n,)."""
    return np.asarray(np.isfinite(X).all(axis=1))


def _joined(X: Mapping[str, NDArray[Any]], weights: Weights) -> NDArray[np.float32]:
    return np.concatenate([X[name] * np.float32(weight) for name, weight in weights.items()], axis=1)


def reduced_name(projection: str, batch: Batch) -> str:
    """The manifest's name for one batch reduced by one projection."""
    return f"reduced/{projection.split('/', 1)[1]}/{batch.name.split('/', 1)[1]}"


def load_projection(store: Store, name: str) -> pca.Projection:
    """A stored projection."""
    parts = {k: store.read(name, k) for k in ("center", "scale", "mean", "components", "explained_variance")}
    total = store.snapshot.entries[name].attributes["total_variance"]
    affine = Affine(parts["center"], parts["scale"])
    return pca.Projection(affine, parts["mean"], parts["components"], parts["explained_variance"], total)


def came_as(descriptor: str) -> str:
    """The descriptor that came in, of one that may be under a further scaler."""
    return descriptor.partition(AT)[0]


def primary(models: Mapping[str, str]) -> dict[str, str]:
    """Those of descriptors under the scaler that is set, and of the mix."""
    return {descriptor: model for descriptor, model in models.items() if AT not in descriptor}


def described(store: Store) -> list[str]:
    """What rows are known by: the descriptors that came in and, where they were clustered, scaled ones and the mix."""
    own, models = store.descriptors, store.snapshot.of_kind("model").values()
    fitted = {str(about["descriptor"]) for e in models if (about := e.attributes)["role"].endswith("/kmeans")}
    return sorted({*own, *(d for d in fitted if d == MIX or came_as(d) in own)})


def holds(store: Store, batch: Batch, descriptor: str) -> bool:
    """Whether a batch has a descriptor, or all that the mix is made of."""
    mix = _mix(store) if descriptor == MIX else None
    return batch.has(came_as(descriptor)) if mix is None else mix.has(batch)


def _mix(store: Store) -> Source | None:
    model = store.snapshot.newest("model", f"{MIX}/kmeans")
    return of_projection(store, store.snapshot.entries[model].attributes["parents"][0]) if model else None

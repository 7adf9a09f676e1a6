"""A day's figures from its rows: exact sums over blocks, by descriptor, by cluster and by camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import quantiles
from streamclust.quantiles import QuantileSketch
from streamclust.streams import Figure, Stream

HELD = 0.99  # a row beyond this quantile of its cluster's distances, of the errors or of sparseness is held by none
FEW_MEMBERS = 100  # a cluster with fewer reference rows has no limit of its own
RANKED = {"distance": "centre_distance", "error": "reconstruction_error", "norm": "norm"}
_UNIT = 2.0**16  # sums of whole multiples of 1 / _UNIT are exact, in any order
Tally = dict[Stream, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What one descriptor's rows are measured by.

    Attributes
    ----------
    sketches : of ``centre_distance``, ``reconstruction_error``, ``norm`` and ``density`` over the fitted rows.
    limits : (k,) float64, the distance up to which each cluster holds a row.
    ids : the k clusters' ids that stay over refits.
    """

    sketches: Mapping[str, QuantileSketch]
    limits: NDArray[np.float64]
    ids: tuple[int, ...]


def cluster_sketches(label: NDArray[np.int32], distance: NDArray[np.float32], k: int) -> list[QuantileSketch]:
    """Sketches of the distances to the centre of each of k clusters, of one block."""
    return [quantiles.sketch_block(distance[label == c], exact=2**12) for c in range(k)]


def limits(everyone: QuantileSketch, clusters: Sequence[QuantileSketch]) -> NDArray[np.float64]:
    """The distances up to which clusters hold a row, (k,), from sketches of all fitted distances and of each one's."""
    usual = quantiles.value_at(everyone, HELD)
    return np.array([quantiles.value_at(c, HELD) if c.count >= FEW_MEMBERS else usual for c in clusters], np.float64)


def unheld(measured: Mapping[str, NDArray[Any]], by: Yardstick) -> NDArray[np.bool_]:
    """Rows that lie beyond the limit of their cluster, of the reconstruction error or of sparseness; (n,)."""
    limit = np.append(by.limits, np.nan)[np.maximum(measured["label"], -1)]
    far = measured["distance"] > limit
    for name, sketch in (("error", "reconstruction_error"), ("score", "density")):
        far |= measured[name] > quantiles.value_at(by.sketches[sketch], HELD)
    return np.asarray(far & (measured["label"] >= 0))


def tally_block(
    measured: Mapping[str, Mapping[str, NDArray[Any]]],
    by: Mapping[str, Yardstick],
    outlier: NDArray[np.bool_],
    camera: NDArray[Any] | None,
    burst: NDArray[np.bool_],
) -> Tally:
    """Sums over one block: per stream the sum of numbers from 0 to 1, of raw values, and the rows.

    Rows of a burst count for ``burst`` and for nothing else, so that one stuck camera is one cause.

    measured : descriptor -> label (n,) int32, negative where the row is not valid; distance, error, norm, score and
    near_duplicates (n,) float32. outlier, burst : (n,) bool. camera : (n,) names, None without.
    """
    found: Tally = {}
    _add(found, Stream("burst"), burst, burst)
    kept = ~burst
    _add(found, Stream("outlier"), outlier[kept], outlier[kept])
    if camera is not None:
        _add_cameras(found, Stream("outlier"), outlier[kept], outlier[kept], camera[kept])
        _add_cameras(found, Stream("share"), kept[kept], kept[kept], camera[kept])
    for descriptor, all_values in measured.items():
        values = {name: array[kept] for name, array in all_values.items()}
        valid = values["label"] >= 0
        far = unheld(values, by[descriptor])
        ranks = {f: quantiles.quantile_of(by[descriptor].sketches[m], values[f]) for f, m in RANKED.items()}
        _add(found, Stream("invalid", descriptor), ~valid, ~valid)
        for figure, flags in (("unheld", far), ("near_duplicates", values["near_duplicates"] > 0)):
            _add(found, Stream(figure, descriptor), flags[valid], flags[valid])
        for figure, rank in ranks.items():
            _add(found, Stream(figure, descriptor), rank[valid], values[figure][valid])
        _add_clusters(found, descriptor, by[descriptor].ids, values, ranks["distance"], valid)
        if camera is not None:
            mine, rank, raw = (v[valid] for v in (camera[kept], ranks["distance"], values["distance"]))
            _add_cameras(found, Stream("unheld", descriptor), far[valid], far[valid], mine)
            _add_cameras(found, Stream("distance", descriptor), rank, raw, mine)
    return found


def add_flags(found: Tally, stream: Stream, flags: NDArray[np.bool_]) -> None:
    """One more stream, of flags; rows of a sample where the day is too large for pairs."""
    _add(found, stream, flags, flags)


def merge(a: Tally, b: Tally) -> Tally:
    """Both blocks' sums."""
    return {s: a.get(s, np.zeros(3)) + b.get(s, np.zeros(3)) for s in [*a, *(s for s in b if s not in a)]}


def figures(tally: Tally) -> dict[Stream, Figure]:
    """The day's figures; nothing of an empty tally."""
    found = {}
    for stream, (total, _, _) in tally.items():
        n = _rows(tally, stream)
        found[stream] = Figure(min(1.0, max(0.0, float(total) / (_UNIT * max(n, 1)))), n)
    return found


def raw_mean(tally: Tally, stream: Stream) -> float:
    """The mean of what a figure was made of, in its own unit: a distance, an error, a norm, or a share again."""
    return float(tally[stream][1] / (_UNIT * max(_rows(tally, stream), 1)))


def _rows(tally: Tally, stream: Stream) -> int:
    """How many rows a figure is of; a camera's share is one of all rows, its sums know of its own only."""
    of = Stream("outlier") if stream.camera and stream.figure == "share" else stream
    return int(tally[of][2])


def _add(found: Tally, stream: Stream, values: NDArray[Any], raw: NDArray[Any]) -> None:
    sums = [np.rint(np.asarray(v, np.float64) * _UNIT).sum() for v in (values, raw)]
    found[stream] = np.array([sums[0], sums[1], len(values)])


def _add_clusters(
    found: Tally,
    descriptor: str,
    ids: Sequence[int],
    values: Mapping[str, NDArray[Any]],
    rank: NDArray[np.float64],
    valid: NDArray[np.bool_],
) -> None:
    label, k = values["label"][valid], len(ids)
    n = np.bincount(label, minlength=k)
    ranks, raw = (
        np.bincount(label, np.rint(v[valid].astype(np.float64) * _UNIT), k) for v in (rank, values["distance"])
    )
    for c, known in enumerate(ids):
        found[Stream("share", descriptor, known)] = np.array([n[c] * _UNIT, n[c] * _UNIT, len(label)])
        found[Stream("distance", descriptor, known)] = np.array([ranks[c], raw[c], n[c]])


def _add_cameras(found: Tally, of: Stream, values: NDArray[Any], raw: NDArray[Any], camera: NDArray[Any]) -> None:
    """One figure for each camera; ``camera`` (n,) names it for each value."""
    for name in sorted(set(camera.tolist())):
        mine = camera == name
        _add(found, replace(of, camera=name), values[mine], raw[mine])

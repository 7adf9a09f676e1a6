"""One look at all rows: their distances to the sampled rows, computed once, for noise verdicts in two passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster import density, voters
from streamclust.job import Job
from streamclust.stages.reduced import read_valid
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows

ARRAYS = ("squares", "columns", "joined")  # of density.Sight


def fit_noise(
    job: Job, drawn: voters.Voters, scratch: Draft, addresses: Sequence[Rows]
) -> tuple[density.NoiseModel, list[Rows]]:
    """Fit HDBSCAN and OPTICS on some addresses, which get arrays in ``scratch`` for what is seen of their rows."""
    found = job.executor.map(density.fit_hdbscan_vote, range(len(drawn.ids)), drawn)
    around, hdbscan = [near for near, _ in found], density.stacked(drawn, [vote for _, vote in found])
    seen = _with_arrays(scratch, addresses, len(drawn.ids), density.listed(drawn))
    core = job.executor.fold(look_block, seen, voters.merge_core, drawn, hdbscan, voters.core_identity(around), run=1)
    optics, radius = density.fit_optics_votes(drawn, around, core)
    return density.NoiseModel(drawn, hdbscan, optics, radius), seen


def _with_arrays(scratch: Draft, addresses: Sequence[Rows], votes: int, listed: int) -> list[Rows]:
    ends, paths = {rows.batch: rows.stop for rows in addresses}, dict[str, dict[str, Path]]()
    for rows in addresses:
        if rows.start == 0:
            room, n, step = rows.batch.split("/", 1)[1], ends[rows.batch], len(rows)
            paths[rows.batch] = {
                "squares": scratch.create(f"{room}/squares", (n, votes * listed), np.float32, step),
                "columns": scratch.create(f"{room}/columns", (n, votes * listed), np.int32, step),
                "joined": scratch.create(f"{room}/joined", (n, votes), np.int32, step),
            }
    return [rows.with_arrays(**paths[rows.batch]) for rows in addresses]


def look_block(
    state: NDArray[np.float32] | None,
    rows: Rows,
    drawn: voters.Voters,
    hdbscan: density.Votes,
    start: NDArray[np.float32],
) -> NDArray[np.float32]:
    """One block's rows into the core distances of the sampled rows, and what was seen of them into scratch arrays."""
    Z, valid = read_valid(rows)
    core = start.copy() if state is None else state.copy()
    sight = density.look(drawn, hdbscan, Z, rows.ids[valid], core)
    for name in ARRAYS:
        values = getattr(sight, name).reshape(len(Z), -1)
        every = np.zeros((len(rows), values.shape[1]), values.dtype)
        every[valid] = values
        rows.write(name, every)
    return core


def sight(rows: Rows, valid: NDArray[np.bool_], Z: NDArray[np.float32], model: density.NoiseModel) -> density.Sight:
    """What a look at these rows left, or shows now; Z : (n, p) their valid reduced rows."""
    if "squares" not in rows.arrays:
        return density.look(model.voters, model.hdbscan, Z, rows.ids[valid])
    squares, columns, joined = (rows.read(name)[valid] for name in ARRAYS)
    shape = len(Z), len(model.voters.ids), -1
    return density.Sight(squares.reshape(shape), columns.reshape(shape), joined)

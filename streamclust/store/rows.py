"""The address of some rows of one batch: what a task gets instead of data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.store import arrays
from streamclust.store.arrays import Where


@dataclass(frozen=True)
class Rows:
    """Rows ``start .. stop`` of a batch; ``base`` is the batch's first row in the snapshot.

    arrays : the arrays a task may read or write, by the name it knows them under.
    """

    batch: str
    base: int
    start: int
    stop: int
    arrays: Mapping[str, Where]

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def ids(self) -> NDArray[np.int64]:
        """Row numbers in the snapshot, (len,)."""
        return np.arange(self.base + self.start, self.base + self.stop)

    def split(self, step: int) -> Iterator[Rows]:
        """The same rows, ``step`` at a time."""
        for start in range(self.start, self.stop, step):
            yield replace(self, start=start, stop=min(start + step, self.stop))

    def with_arrays(self, **paths: Where) -> Rows:
        """The same rows with further arrays."""
        return replace(self, arrays={**self.arrays, **paths})

    def read(self, name: str) -> NDArray[Any]:
        """These rows of one array."""
        return arrays.read_rows(self.arrays[name], self.start, self.stop)

    def write(self, name: str, values: NDArray[Any]) -> str:
        """Write these rows of one array, whole chunks that this task alone owns; returns their digest."""
        arrays.write_rows(self.arrays[name], self.start, values)
        return arrays.digest(values)

    def written(self, *names: str) -> bool:
        """Whether these rows of those arrays are there already, soundly."""
        return all(arrays.has_rows(self.arrays[name], self.start, self.stop) for name in names)

    def digest(self, name: str) -> str:
        """The digest of what is stored."""
        return arrays.digest(self.read(name))


def pick(rows: Rows, numbers: NDArray[np.int64], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of an address's rows that are among ``numbers`` of its batch, by array."""
    mine = numbers[(numbers >= rows.start) & (numbers < rows.stop)] - rows.start
    return {name: rows.read(name)[mine] for name in names}


def leaves(batch: str, base: int, n: int, rows: int, paths: Mapping[str, Where]) -> Iterator[Rows]:
    """The fixed grid of ``rows``-row addresses over a batch: it depends on the stored shape only."""
    for start in range(0, n, rows):
        yield Rows(batch, base, start, min(n, start + rows), paths)

"""Compare what was found in a drawn case with what was drawn: ``read_truth`` and ``agreement_with_truth``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

FACTORS = ("type", "view", "colour")
COLUMNS = ("path", "kind", *FACTORS)


@dataclass(frozen=True, slots=True)
class Agreement:
    """One line of the comparison: what was asked, how it was measured, which column answered best, and its value."""

    question: str
    measure: str
    column: str
    value: float


def read_truth(path: str | Path) -> dict[str, NDArray[np.str_]]:
    """The columns of ``truth.csv``, (n,) strings each: path, kind ("vehicle" or "junk"), type, view, colour."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise InputError(
            path, "not a truth table" if rows else "no rows", f"the columns {', '.join(COLUMNS)}", "draw the case again"
        )
    return {name: np.array([row[name] for row in rows]) for name in COLUMNS}


def agreement_with_truth(truth: Mapping[str, ArrayLike], columns: Mapping[str, ArrayLike]) -> list[Agreement]:
    """How well label columns and an outlier score agree with the truth of a drawn case.

    For each factor (type, view, colour), over vehicles only: the purity of the best ``{descriptor}_fine`` column, and
    the adjusted Rand index (Hubert and Arabie 1985) of the best ``{descriptor}_k{n}`` column, n being the factor's true
    number of values. For junk: the average precision of ``outlier_score``. Where there is no column there is no line.

    Parameters
    ----------
    truth : mapping
        As `read_truth` gives it.
    columns : mapping
        ``path`` (n,), in any order, and the columns named above, (n,) each. A label below 0 means no cluster and earns
        no purity.

    Raises
    ------
    InputError
        if ``columns`` and ``truth`` do not hold the same paths, or a column has another length.
    """
    known = {name: np.asarray(values) for name, values in truth.items()}
    found = in_order_of(known["path"], columns)
    vehicle = known["kind"] == "vehicle"
    lines = []
    for factor in FACTORS:
        real = known[factor][vehicle]
        fine = {name: purity(real, values[vehicle]) for name, values in found.items() if name.endswith("_fine")}
        lines += best(factor, "purity", fine)
        suffix = f"_k{len(np.unique(real))}"
        lines += best(
            factor, "ARI", {name: rand_index(real, v[vehicle]) for name, v in found.items() if name.endswith(suffix)}
        )
    if "outlier_score" in found:
        from sklearn.metrics import average_precision_score

        value = float(average_precision_score(~vehicle, found["outlier_score"]))
        lines.append(Agreement("junk", "average precision", "outlier_score", value))
    return lines


def in_order_of(paths: NDArray[Any], columns: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """The columns with their rows in the order of ``paths``."""
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    theirs = arrays.pop("path", np.array([], str)).astype(str)
    for name, values in arrays.items():
        if values.shape != theirs.shape:
            raise InputError(name, f"shape {values.shape}", f"{theirs.shape}, as many rows as the column path")
    order, wanted = np.argsort(theirs), np.argsort(paths)
    if not np.array_equal(theirs[order], paths[wanted]):
        raise InputError(
            "path",
            f"{len(theirs)} paths",
            f"the {len(paths)} paths of the truth table",
            "compare one drawn case with itself",
        )
    place = np.empty(len(paths), np.intp)
    place[wanted] = order
    return {name: values[place] for name, values in arrays.items()}


def best(question: str, measure: str, values: Mapping[str, float]) -> list[Agreement]:
    """The line of the column with the highest value, or none where there is no column."""
    return [
        Agreement(question, measure, name, values[name]) for name in sorted(values, key=lambda name: -values[name])[:1]
    ]


def purity(real: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of rows that have their cluster's commonest value; rows labelled below 0 count as misses."""
    from sklearn.metrics.cluster import contingency_matrix

    clustered = labels >= 0
    if not clustered.any():
        return 0.0
    return float(contingency_matrix(real[clustered], labels[clustered]).max(axis=0).sum() / len(real))


def rand_index(real: NDArray[Any], labels: NDArray[Any]) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(real, labels))

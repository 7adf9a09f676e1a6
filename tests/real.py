"""The shared real data, scaled to unit variance and reduced to the components that hold 90 % of it."""

from __future__ import annotations

import csv
import pickle
from functools import cache

import numpy as np

from tests.conftest import shared_data


def scaled_and_reduced(X: np.ndarray) -> np.ndarray:
    X = X.astype(np.float64)
    deviation = X.std(0)
    Z = (X - X.mean(0)) / np.where(deviation > 1e-9, deviation, 1)
    values, vectors = np.linalg.eigh(Z.T @ Z)
    share = np.cumsum(values[::-1]) / values.sum()
    return (Z @ vectors[:, ::-1][:, : int(np.searchsorted(share, 0.9)) + 1]).astype(np.float32)


@cache
def vehicles() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(6080,) bool, true where the picture is junk, and the reduced rows by descriptor."""
    base = shared_data("vehicles/base")
    with (base / "truth.csv").open(newline="") as file:
        junk = np.array([row["kind"] == "non-vehicle" for row in csv.DictReader(file)])
    descriptors = {}
    for name in ("osnet", "vdc", "vdc_mid"):
        with (base / "descriptors" / f"{name}.pickle").open("rb") as file:
            descriptors[name] = scaled_and_reduced(pickle.load(file))
    return junk, descriptors


def reduced(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The reduced rows of one labelled set, and its labels."""
    with np.load(shared_data(name)) as arrays:
        return scaled_and_reduced(arrays["X"]), arrays["y"].astype(int)

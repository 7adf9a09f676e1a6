"""Kinds of rows that came after a fit: where to start clusters for them, so that they do not take over old ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamclust import bursts
from streamclust.cluster.assign import assign

Single = NDArray[np.float32]

GAP = 4.0  # halves of one normal kind are 2.6 standard deviations apart, of a uniform one 3.5


def newcomers(windows: Sequence[Single], fitted: Single, centers: Single, most: int) -> Single:
    """Means of the crowds among a cluster's later rows where hardly any of its fitted ones are; the densest first.

    A cluster that grows is none: its rows are where its rows were.

    Parameters
    ----------
    windows : (m, p) float32 each
        Rows that came since, such as a sample of all of them and the very last ones, in which a kind shows that is lost
        among months. A crowd that an earlier window has is not found again.
    fitted : (n, p) float32
        A sample of the rows that the clusters were fitted on, in the same space.
    centers : (k, p) float32
        Those clusters.
    most : int
        How many to find at most.

    Returns
    -------
    (found, p) float32, found <= most. See `streamclust.bursts.crowded` for what a crowd is; a near-identical burst is
    none. Memory and time: the pairs of a window, and of it with the fitted rows, a tile at a time.
    """
    found = np.empty((0, fitted.shape[1]), np.float32)
    if len(fitted) < 2 or not len(centers):
        return found
    near, usual = bursts.radii(fitted)
    crowds = []
    for window in windows:
        Z = _without_bursts(window, near)
        crowds.append(_crowd(Z, fitted, centers, max(usual, bursts.radii(Z)[1])))
        found = _hearts(crowds[-1], found, max(bursts.LEAST, int(np.ceil(bursts.CROWD_SHARE * len(Z)))))
    return _apart(np.concatenate(crowds), found)[:most] if len(found) else found


def _hearts(crowd: Single, found: Single, least: int) -> Single:
    """What was found, and the mean of each dense place of a crowd that is away from it, by the crowd's own radius."""
    around = bursts.radii(crowd)[1]
    crowd = crowd[~_around(crowd, found, around)]
    while len(crowd) >= least:
        members = bursts.heart(crowd, 0.0, least).members
        mean = crowd[members].mean(axis=0, keepdims=True)
        found = np.concatenate([found, mean])
        crowd = np.delete(crowd, members, axis=0)
        crowd = crowd[~_around(crowd, mean, around)]
    return found


def _apart(crowd: Single, means: Single) -> Single:
    """One mean for what has no gap: along the line between two means, their rows must be well apart."""
    while True:
        label = assign(crowd, means)[0]
        parts = [crowd[label == i] for i in np.unique(label)]
        means = np.stack([part.mean(axis=0) for part in parts])
        gaps = {(i, j): _gap(parts[i], parts[j]) for j in range(len(parts)) for i in range(j)}
        if not gaps or min(gaps.values()) >= GAP:
            return means
        i, j = min(gaps, key=gaps.__getitem__)
        means[i] = np.concatenate([parts[i], parts[j]]).mean(axis=0)
        means = np.delete(means, j, axis=0)


def _gap(a: Single, b: Single) -> float:
    """The distance of two groups' means over their standard deviation along it."""
    line = b.mean(axis=0) - a.mean(axis=0)
    length = float(np.linalg.norm(line))
    spread = np.sqrt((np.var(a @ line) + np.var(b @ line)) / 2) / max(length, 1e-30)
    return length / max(float(spread), 1e-30)


def _crowd(Z: Single, fitted: Single, centers: Single, around: float) -> Single:
    """Rows that are crowded within their cluster."""
    ours, theirs = assign(Z, centers)[0], assign(fitted, centers)[0]
    found = np.zeros(len(Z), bool)
    for cluster in np.unique(ours):
        here = ours == cluster
        found[here] = bursts.crowded(Z[here], fitted[theirs == cluster], around)
    return Z[found]


def _without_bursts(Z: Single, near: float) -> Single:
    if not len(Z) or near <= 0:
        return Z
    Y = {"": Z / np.float32(near)}
    return Z[~bursts.near_any(Y, {"": Y[""][bursts.bursts(Y, len(Z))]})]


def _around(Z: Single, centers: Single, radius: float) -> NDArray[np.bool_]:
    """Which rows of Z lie within a radius of some centre."""
    found = np.zeros(len(Z), bool)
    for center in centers:
        found |= np.square(Z - center).sum(axis=1) <= radius**2
    return found

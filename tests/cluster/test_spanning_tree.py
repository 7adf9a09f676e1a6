"""The spanning tree against SciPy's, HDBSCAN's and OPTICS' clusters against the packages' own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn.cluster import OPTICS
from sklearn.metrics import adjusted_rand_score

from streamclust.cluster.spanning_tree import dbscan_labels, hdbscan_labels, spanning_tree


def blobs(seed: int, n: int, p: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, p)) + 6 * rng.normal(size=(4, p))[rng.integers(0, 4, n)]).astype(np.float32)


def core_of(S: np.ndarray, k: int) -> np.ndarray:
    return np.sort(cdist(S, S), axis=1)[:, k].astype(np.float32)


@given(seed=st.integers(0, 2**31), n=st.integers(6, 120), p=st.integers(1, 12))
@settings(max_examples=30)
def test_total_weight_is_scipy_s(seed, n, p):
    S = blobs(seed, n, p)
    core = core_of(S, 3)
    reach = np.maximum(np.maximum(cdist(S, S), core[:, None]), core)
    tree = spanning_tree(S, core)
    assert len(tree) == n - 1
    assert (np.diff(tree[:, 2]) >= 0).all()
    # float32 squares of distances by GEMM
    assert tree[:, 2].sum() == pytest.approx(minimum_spanning_tree(reach).sum(), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_hdbscan_s_own_clusters(seed):
    import hdbscan

    S = blobs(seed, 500, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hdbscan calls scikit-learn by names it is phasing out
        theirs = hdbscan.HDBSCAN(min_cluster_size=20, min_samples=5, core_dist_n_jobs=1).fit(S.astype(float)).labels_
    ours = hdbscan_labels(spanning_tree(S, core_of(S, 5)), 20)
    assert adjusted_rand_score(theirs, ours) > 0.99
    assert np.mean((theirs < 0) == (ours < 0)) > 0.99


@pytest.mark.parametrize("seed", range(4))
def test_optics_clusters_at_eps(seed):
    S = blobs(seed, 400, 3)
    core = core_of(S, 4)  # scikit-learn's min_samples counts the row itself
    eps = float(np.quantile(core, 0.9))
    theirs = OPTICS(min_samples=5, max_eps=eps, eps=eps, cluster_method="dbscan").fit(S.astype(float)).labels_
    ours = dbscan_labels(spanning_tree(S, core), core, eps)
    inside = core <= eps
    assert adjusted_rand_score(theirs[inside], ours[inside]) == 1
    assert (ours[~inside] == -1).all()

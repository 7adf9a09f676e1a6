"""Laws of weighted agglomerative clustering: scipy's and scikit-learn's trees, weights as rows, cuts, graphs."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from scipy.cluster import hierarchy
from sklearn.cluster import AgglomerativeClustering, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import kneighbors_graph

from streamclust.cluster.assign import assign
from streamclust.cluster.hierarchy import UNRESTRICTED, agglomerate, cut, cut_all, linkage_matrix
from streamclust.errors import InputError

LINKAGES = ["ward", "average", "complete"]
each_linkage = pytest.mark.parametrize("linkage", LINKAGES)
each_seed = pytest.mark.parametrize("seed", range(4))
some_or_all = pytest.mark.parametrize("neighbors", [5, None])


def draw(seed, m=150, p=4):
    """Micro-clusters of overlapping (even seeds) or separate blobs, without equal distances or sizes."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(m, p)) + (2 + 20 * (seed % 2)) * rng.normal(size=(6, p))[rng.integers(0, 6, m)]
    return centers, rng.permutation(100 * m)[:m] + 1, rng


def same(a, b):
    return adjusted_rand_score(a, b) == 1


def members(tree):
    """The leaves under every node."""
    under = [[leaf] for leaf in range(len(tree.weights))]
    for a, b in tree.children:
        under.append(under[a] + under[b])
    return under


@each_linkage
@each_seed
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_weights_are_scipy_s_tree(seed, linkage, dtype):
    centers = draw(seed)[0].astype(dtype)
    tree = agglomerate(centers, np.ones(len(centers), int), linkage=linkage, neighbors=None)
    theirs = hierarchy.linkage(centers.astype(float), linkage)
    np.testing.assert_array_equal(tree.children, theirs[:, :2])
    np.testing.assert_allclose(tree.heights, theirs[:, 2], rtol=1e-10)  # float64 updates in another order
    np.testing.assert_allclose(linkage_matrix(tree), theirs, rtol=1e-10)
    for k in (1, 2, 7, 40):
        assert same(cut(tree, k), AgglomerativeClustering(k, linkage=linkage).fit(centers).labels_)


@each_linkage
@each_seed
@pytest.mark.parametrize("neighbors", [2, 10])
def test_same_graph_is_scikit_learn_s_structured_tree(seed, linkage, neighbors):
    centers, _, _ = draw(seed)
    tree = agglomerate(centers, np.ones(len(centers), int), linkage=linkage, neighbors=neighbors)
    graph = kneighbors_graph(centers, neighbors, include_self=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the number of connected components")  # separate blobs: both link them
        theirs = AgglomerativeClustering(1, linkage=linkage, connectivity=graph, compute_distances=True).fit(centers)
    np.testing.assert_array_equal(tree.children, theirs.children_)
    np.testing.assert_allclose(tree.heights, theirs.distances_, rtol=1e-10)


@each_linkage
@each_seed
def test_weights_are_repeated_rows(seed, linkage):
    centers, _, rng = draw(seed, m=40)
    weights = rng.integers(1, 12, 40)
    which = np.repeat(np.arange(40), weights)
    tree = agglomerate(centers, weights, linkage=linkage, neighbors=None)
    rows = hierarchy.linkage(centers[which], linkage)[-39:]
    # the other merges are of equal rows, at 0 but for rounding; scipy adds up to 12 x 40 updates
    np.testing.assert_allclose(tree.heights, rows[:, 2], rtol=1e-9)
    np.testing.assert_array_equal(tree.sizes, rows[:, 3])
    for k in (2, 5, 20):
        assert same(cut(tree, k)[which], AgglomerativeClustering(k, linkage=linkage).fit_predict(centers[which]))


@each_seed
@some_or_all
def test_ward_s_heights_are_the_increase_of_the_sum_of_squares(seed, neighbors):
    centers, weights, _ = draw(seed)
    tree = agglomerate(centers, weights, neighbors=neighbors)

    def scatter(leaves):
        x, w = centers[leaves], weights[leaves]
        return w @ np.square(x - np.average(x, axis=0, weights=w)).sum(axis=1)

    within = np.array([scatter(leaves) for leaves in members(tree)])
    increase = within[len(weights) :] - within[tree.children].sum(axis=1)
    # the increase is a difference of sums as large as the total
    np.testing.assert_allclose(tree.heights**2 / 2, increase, rtol=1e-9, atol=1e-12 * within[-1])
    np.testing.assert_allclose((tree.heights**2).sum() / 2, within[-1], rtol=1e-12)
    np.testing.assert_array_equal(tree.sizes, [weights[leaves].sum() for leaves in members(tree)[len(weights) :]])


@each_linkage
@each_seed
def test_a_graph_of_all_pairs_restricts_nothing(seed, linkage):
    centers, weights, _ = draw(seed)
    all_pairs, free = (agglomerate(centers, weights, linkage=linkage, neighbors=n) for n in (1000, None))
    np.testing.assert_array_equal(all_pairs.children, free.children)
    np.testing.assert_allclose(all_pairs.heights, free.heights, rtol=1e-10)  # centroids against updates


@each_seed
@pytest.mark.parametrize("neighbors", [29, None])
def test_equal_heights_go_to_the_smallest_leaves(seed, neighbors):
    """Against complete linkage by definition: on a grid its heights are exact, and many are equal."""
    m = 30
    rng = np.random.default_rng(seed)
    grid = rng.permutation([[i, j] for i in range(6) for j in range(5)]).astype(float)
    tree = agglomerate(grid, np.ones(m, int), linkage="complete", neighbors=neighbors)
    distance = np.sqrt(np.square(grid[:, None] - grid).sum(axis=2))
    clusters = {i: [i] for i in range(m)}  # by node, with the smallest leaf first
    for node, (pair, height) in enumerate(zip(tree.children, tree.heights, strict=True), m):
        found = min(
            (distance[np.ix_(A, B)].max(), A[0], B[0], *sorted((a, b)))
            for a, A in clusters.items()
            for b, B in clusters.items()
            if A[0] < B[0]
        )
        assert (found[0], *found[3:]) == (height, *pair)
        clusters[node] = sorted(clusters.pop(pair[0]) + clusters.pop(pair[1]))


@each_linkage
@each_seed
@some_or_all
def test_order_and_offset_of_the_micro_clusters_do_not_matter(seed, linkage, neighbors):
    centers, weights, rng = draw(seed)
    order = rng.permutation(len(centers))
    tree = agglomerate(centers, weights, linkage=linkage, neighbors=neighbors)
    other = agglomerate(centers[order] + 1e4, weights[order], linkage=linkage, neighbors=neighbors)
    np.testing.assert_allclose(other.heights, tree.heights, rtol=1e-7)  # eps x 1e4 beside distances near 1e-2
    for k in (2, 6, 30):
        np.testing.assert_array_equal(cut(other, k), cut(tree, k)[order])


@each_linkage
@some_or_all
def test_cuts_are_nested_and_the_largest_first(linkage, neighbors):
    centers, weights, _ = draw(0, m=60)
    before = centers.copy(), weights.copy()
    tree = agglomerate(centers, weights, linkage=linkage, neighbors=neighbors)
    np.testing.assert_array_equal(centers, before[0])
    np.testing.assert_array_equal(weights, before[1])
    finer = cut(tree, 60)
    for k, labels in sorted(cut_all(tree, range(1, 61)).items(), reverse=True):
        assert labels.dtype == np.int32
        assert len(np.unique(labels)) == k == labels.max() + 1
        assert (np.diff(np.bincount(labels, weights)) <= 0).all()
        assert len(np.unique(np.stack([finer, labels]), axis=1).T) == len(np.unique(finer))
        np.testing.assert_array_equal(labels, cut(tree, k))
        finer = labels


def test_inversions_are_kept_and_drawn_flat():
    centers, weights, _ = draw(0, m=400, p=30)
    tree = agglomerate(centers, weights, neighbors=2)
    drawn = linkage_matrix(tree)
    assert (np.diff(tree.heights) < 0).any()
    assert hierarchy.is_monotonic(drawn)
    assert (drawn[:, 2] >= tree.heights).all()
    assert sorted(hierarchy.dendrogram(drawn, no_plot=True)["leaves"]) == list(range(400))
    for k in (5, 50):
        assert drawn[-k, 2] < drawn[-k + 1, 2]
        assert same(hierarchy.fcluster(drawn, drawn[-k, 2], "distance"), cut(tree, k))


@each_linkage
@pytest.mark.parametrize("neighbors", [1, 3])
def test_components_of_the_graph_are_joined(linkage, neighbors):
    rng = np.random.default_rng(5)
    true = np.repeat(np.arange(8), 20)
    centers = 1000 * rng.normal(size=(8, 3))[true] + rng.normal(size=(160, 3))
    tree = agglomerate(centers, rng.integers(1, 9, 160), linkage=linkage, neighbors=neighbors)
    assert same(cut(tree, 8), true)


@each_linkage
@some_or_all
def test_duplicate_centres_merge_first(linkage, neighbors):
    rng = np.random.default_rng(6)
    place = rng.permutation(np.repeat(np.arange(5), 30))
    tree = agglomerate(rng.normal(size=(5, 3))[place], np.ones(150, np.float32), linkage=linkage, neighbors=neighbors)
    assert same(cut(tree, 5), place)
    np.testing.assert_allclose(tree.heights[:145], 0, atol=1e-12)  # a mean of equal centroids may round
    assert tree.sizes.dtype == np.float64
    equal = agglomerate(np.zeros((50, 2)), np.ones(50), linkage=linkage, neighbors=neighbors)
    assert not equal.heights.any()


@each_linkage
@some_or_all
def test_one_and_two(linkage, neighbors):
    one = agglomerate(np.ones((1, 3), np.float32), np.array([7]), linkage=linkage, neighbors=neighbors)
    assert (one.children.shape, one.heights.shape, one.sizes.shape) == ((0, 2), (0,), (0,))
    assert cut(one, 1).tolist() == [0]
    two = agglomerate(np.array([[0.0], [3.0]]), np.array([1, 2]), linkage=linkage, neighbors=neighbors)
    assert two.children.tolist() == [[0, 1]]
    assert two.sizes.tolist() == [3]
    assert two.heights == pytest.approx([np.sqrt(2 * 2 / 3 * 9) if linkage == "ward" else 3])
    assert (cut(two, 2).tolist(), cut(two, 1).tolist()) == ([1, 0], [0, 0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"centers": np.zeros((0, 3))},
        {"centers": np.zeros(4)},
        {"centers": np.full((4, 2), np.nan)},
        {"centers": np.full((4, 2), 1e200)},
        {"weights": np.ones(3)},
        {"weights": np.array([1, 1, 0, 1])},
        {"weights": np.array([1, 1, np.nan, 1])},
        {"linkage": "single"},
        {"neighbors": 0},
        {"centers": np.zeros((UNRESTRICTED + 1, 1)), "weights": np.ones(UNRESTRICTED + 1), "neighbors": None},
    ],
)
def test_refusals(wrong):
    right = {"centers": np.zeros((4, 2)), "weights": np.ones(4), "linkage": "ward", "neighbors": 2}
    with pytest.raises(InputError):
        agglomerate(**(right | wrong))


@pytest.mark.parametrize("k", [0, -1, 5])
def test_k_out_of_range(k):
    tree = agglomerate(np.arange(8.0).reshape(4, 2), np.ones(4, int))
    with pytest.raises(InputError, match="1 to 4"):
        cut(tree, k)
    with pytest.raises(InputError):
        cut_all(tree, [2, k])


@pytest.fixture(scope="module")
def blobs():
    """20,000 rows of 12 uneven blobs, their blob, and 300 micro-clusters' centres, counts and labels."""
    rng = np.random.default_rng(7)
    true = rng.choice(12, 20_000, p=np.arange(3, 15) / np.arange(3, 15).sum())
    X = (rng.normal(size=(20_000, 10)) + 2.5 * rng.normal(size=(12, 10))[true]).astype(np.float32)
    centers = MiniBatchKMeans(300, n_init=1, random_state=0).fit(X).cluster_centers_
    centers = centers[np.unique(assign(X, centers)[0])]
    labels = assign(X, centers)[0]
    return X, true, centers, np.bincount(labels), labels


@pytest.mark.parametrize(
    ("linkage", "neighbors"),
    [("ward", 10), ("ward", None), ("average", None), ("complete", None)],  # those two chain under a graph
)
def test_rows_through_micro_clusters(blobs, linkage, neighbors):
    X, true, centers, counts, labels = blobs
    found = cut(agglomerate(centers, counts, linkage=linkage, neighbors=neighbors), 12)[labels]
    assert adjusted_rand_score(true, found) > 0.95
    some = slice(0, 1500)
    assert adjusted_rand_score(AgglomerativeClustering(12).fit_predict(X[some]), found[some]) > 0.95


@pytest.mark.slow
def test_memory_is_that_of_the_graph():
    centers, weights, _ = draw(0, m=4000, p=32)
    tracemalloc.start()
    agglomerate(centers.astype(np.float32), weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 2**20  # m x m would be 128 MB

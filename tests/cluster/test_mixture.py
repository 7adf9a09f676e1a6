"""Laws of the Gaussian mixture: equal to scikit-learn's, whatever the blocks, the order of merging and the offset."""

from __future__ import annotations

import copy
import tracemalloc
from functools import reduce

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from sklearn.mixture._gaussian_mixture import _estimate_gaussian_parameters

from streamclust.cluster.mixture import (
    Mixture,
    MixtureState,
    em,
    identity,
    labelled_block,
    maximise,
    merge,
    mixture_block,
    posterior,
)
from streamclust.errors import InputError

TYPES = ["full", "tied", "diag", "spherical"]
every_type = pytest.mark.parametrize("kind", TYPES)
# seed, components, features, distance between components in standard deviations: overlapping, and far enough apart for
# responsibilities to underflow
problems = pytest.mark.parametrize(
    ("seed", "k", "p", "apart"), [(0, 4, 5, 1.5), (1, 3, 12, 40.0), (2, 1, 3, 1.0), (3, 6, 1, 3.0)]
)
SUMS = ("log_likelihood", "responsibilities", "first", "second")


def draw(seed, k, p, apart, n=700):
    """Blobs of unequal size and shape; multiples of 1 / 512, which stay exact in float32 beside an offset of 1e4."""
    rng = np.random.default_rng(seed)
    label = rng.choice(k, n, p=rng.dirichlet(np.full(k, 4.0)))
    shapes = rng.normal(size=(k, p, p)) / p**0.5 + np.eye(p)
    rows = np.einsum("ni,nij->nj", rng.normal(size=(n, p)), shapes[label]) + apart * rng.normal(size=(k, p))[label]
    return (np.round(rows * 512) / 512).astype(np.float32), rng


def some_mixture(kind, Z, k, rng):
    """A random mixture near the rows."""
    p = Z.shape[1]
    roots = rng.normal(size=(k, p, p)) / p**0.5
    full = Z.std() ** 2 * (roots @ roots.transpose(0, 2, 1) + np.eye(p))
    variances = np.einsum("kii->ki", full)
    covariances = {"full": full, "tied": full[0], "diag": variances, "spherical": variances[:, 0]}[kind]
    return Mixture.of(kind, rng.dirichlet(np.full(k, 9.0)), Z[rng.choice(len(Z), k, replace=False)], covariances)


def precisions(mixture):
    if mixture.covariance_type in {"diag", "spherical"}:
        return 1 / mixture.covariances
    inverse = np.linalg.inv(mixture.covariances)
    return (inverse + np.swapaxes(inverse, -1, -2)) / 2


def folding(blocks, seen=None):
    def fold(mixtures):
        states = {key: reduce(merge, [mixture_block(Z, m) for Z in blocks]) for key, m in mixtures.items()}
        if seen is not None:
            seen.append({key: state.mean_log_likelihood for key, state in states.items()})
        return states

    return fold


def cut(Z, rng):
    """Z in five blocks, empty ones among them."""
    return np.split(Z, np.sort(rng.integers(0, len(Z) + 1, 4)))


def close(a, b, rtol):
    """Equal relative to the largest number of an array: entries near 0 are differences of larger ones."""
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(initial=0))


def same_mixture(a, b, rtol, offset=0.0):
    close(a.weights, b.weights, rtol)
    close(a.means - offset, b.means, rtol)
    close(a.covariances, b.covariances, rtol)


def finite(mixture):
    return all(np.isfinite(a).all() for a in (mixture.weights, mixture.means, mixture.covariances))


@every_type
@problems
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_iter", [1, 5, 300])
def test_em_equals_scikit_learn(kind, seed, k, p, apart, max_iter):
    Z, rng = draw(seed, k, p, apart)
    X, start, seen = Z.astype(np.float64), some_mixture(kind, Z, k, rng), []
    ours = em(folding(cut(Z, rng), seen), {k: start}, max_iter=max_iter)[k]
    theirs = GaussianMixture(k, covariance_type=kind, max_iter=max_iter, weights_init=start.weights)
    theirs.set_params(means_init=start.means, precisions_init=precisions(start)).fit(X)
    order = np.argsort(-theirs.weights_, kind="stable")
    covariances = theirs.covariances_ if kind == "tied" else theirs.covariances_[order]
    # rounding of float64, times what EM makes of it before it settles
    same_mixture(ours.mixture, Mixture.of(kind, theirs.weights_[order], theirs.means_[order], covariances), 1e-10)
    assert (ours.n_iter, ours.converged, ours.n) == (theirs.n_iter_, theirs.converged_, len(Z))
    assert len(seen) == ours.n_iter + 1
    np.testing.assert_allclose(seen[-2][k], theirs.lower_bound_, rtol=1e-9)
    np.testing.assert_allclose(seen[-1][k], theirs.score(X), rtol=1e-9)
    assert seen[-1][k] == ours.log_likelihood
    np.testing.assert_allclose([ours.bic, ours.aic], [theirs.bic(X), theirs.aic(X)], rtol=1e-9)
    labels, confidence, log_density = posterior(Z, ours.mixture)
    np.testing.assert_array_equal(order[labels], theirs.predict(X))
    # float32 output
    np.testing.assert_allclose(confidence, theirs.predict_proba(X).max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(log_density, theirs.score_samples(X), rtol=1e-6, atol=1e-6)


@every_type
@problems
def test_state_merges(kind, seed, k, p, apart):
    Z, rng = draw(seed, k, p, apart)
    mixture = some_mixture(kind, Z, k, rng)
    whole = mixture_block(Z, mixture)
    states = [mixture_block(part, mixture) for part in cut(Z, rng)]
    before = copy.deepcopy(states)
    shuffled = [states[i] for i in rng.permutation(len(states))]
    pairs = [(merge(identity(mixture), whole), whole), (merge(whole, identity(mixture)), whole)]
    pairs += [(reduce(merge, states), whole), (reduce(lambda a, b: merge(b, a), shuffled), whole)]
    for a, b in pairs + list(zip(states, before, strict=True)):
        assert a.n == b.n
        for name in SUMS:
            close(getattr(a, name), getattr(b, name), 1e-9)
    for a, b in zip(states, before, strict=True):
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in SUMS)
    same_mixture(maximise(reduce(merge, states)), maximise(whole), 1e-9)


@every_type
def test_tiles_do_not_show(kind):
    Z, rng = draw(4, 3, 4, 2.0, n=5000)  # more than two tiles
    mixture = some_mixture(kind, Z, 3, rng)
    parts = reduce(merge, [mixture_block(part, mixture) for part in np.array_split(Z, 50)])
    for name in SUMS:
        close(getattr(mixture_block(Z, mixture), name), getattr(parts, name), 1e-9)
    for whole, piece in zip(posterior(Z, mixture), posterior(Z[4000:], mixture), strict=True):
        np.testing.assert_allclose(whole[4000:], piece, rtol=1e-6)


@every_type
@problems
def test_an_offset_costs_nothing(kind, seed, k, p, apart):
    Z, rng = draw(seed, k, p, apart)
    start = some_mixture(kind, Z, k, rng)
    far = Mixture.of(kind, start.weights, start.means + 1e4, start.covariances)
    here = em(folding([Z]), {0: start}, max_iter=8)[0]
    there = em(folding([Z + np.float32(1e4)]), {0: far}, max_iter=8)[0]
    same_mixture(there.mixture, here.mixture, 1e-9, offset=1e4)  # the means carry eps x 1e4 = 2e-12
    np.testing.assert_allclose(there.log_likelihood, here.log_likelihood, rtol=1e-9)
    np.testing.assert_array_equal(posterior(Z + np.float32(1e4), there.mixture)[0], posterior(Z, here.mixture)[0])


@every_type
@problems
def test_hard_labels_give_a_start(kind, seed, k, p, apart):
    Z, rng = draw(seed, k, p, apart)
    labels = rng.integers(-1, k, len(Z)).astype(np.int32)
    centers = Z[rng.choice(len(Z), k, replace=False)]
    parts = zip(np.array_split(Z, 4), np.array_split(labels, 4), strict=True)
    state = reduce(merge, [labelled_block(part, label, centers, kind) for part, label in parts])
    X = Z[labels >= 0].astype(np.float64)
    expected = _estimate_gaussian_parameters(X, np.eye(k)[labels[labels >= 0]], 1e-6, kind)
    start = maximise(state)
    assert state.n == len(X)
    same_mixture(start, Mixture.of(kind, expected[0] / expected[0].sum(), *expected[1:]), 1e-9)


@every_type
@pytest.mark.parametrize("seed", range(4))
def test_the_likelihood_never_falls(kind, seed):
    Z, rng = draw(seed, 5, 4, 2.0)
    seen = []
    em(folding([Z], seen), {0: some_mixture(kind, Z, 5, rng)}, max_iter=30, tol=0)
    assert len(seen) == 31
    assert np.diff([s[0] for s in seen]).min() > -1e-6  # reg_covar alone may cost as much


@every_type
def test_many_mixtures_share_every_read(kind):
    Z, rng = draw(5, 4, 3, 2.0)
    starts = {(kind, k): some_mixture(kind, Z, k, rng) for k in (1, 3, 5)}
    starts["other"] = some_mixture("diag", Z, 4, rng)
    seen = []
    found = em(folding([Z], seen), starts, max_iter=12)
    assert list(found) == list(starts)
    assert len(seen) == 1 + max(result.n_iter for result in found.values())
    for key, result in found.items():
        alone = em(folding([Z]), {key: starts[key]}, max_iter=12)[key]
        np.testing.assert_array_equal(result.mixture.means, alone.mixture.means)
        assert (result.bic, result.n_iter, result.converged) == (alone.bic, alone.n_iter, alone.converged)
        assert (np.diff(result.mixture.weights) <= 0).all()


@every_type
def test_posterior_is_bayes_rule(kind):
    Z, rng = draw(6, 3, 4, 1.0, n=60)
    mixture = some_mixture(kind, Z, 3, rng)
    covariances = [mixture.covariances] * 3 if kind == "tied" else mixture.covariances
    each = zip(mixture.means, covariances, strict=True)
    logs = [multivariate_normal(m, c * np.eye(4) if kind in {"diag", "spherical"} else c).logpdf(Z) for m, c in each]
    joint = np.log(mixture.weights)[:, None] + logs
    labels, confidence, log_density = posterior(Z, mixture)
    assert (labels.dtype, confidence.dtype, log_density.dtype) == (np.int32, np.float32, np.float32)
    np.testing.assert_array_equal(labels, joint.argmax(axis=0))
    np.testing.assert_allclose(log_density, logsumexp(joint, axis=0), rtol=1e-6)
    np.testing.assert_allclose(confidence, np.exp(joint.max(axis=0) - logsumexp(joint, axis=0)), rtol=1e-6)


@every_type
def test_nothing_becomes_infinite(kind):
    Z, rng = draw(7, 2, 3, 1.0, n=40)
    start = some_mixture(kind, Z, 3, rng)
    lost = Mixture.of(kind, start.weights, np.vstack([start.means[:2], [[1e9, 0, 0]]]), start.covariances)
    found = em(folding([Z]), {0: lost}, max_iter=1)[0]  # no row is near component 2
    np.testing.assert_array_equal(found.mixture.means[2], lost.means[2])
    assert finite(found.mixture)
    assert found.mixture.weights[2] < 1e-15
    if kind != "tied":
        close(found.mixture.covariances[2], 1e-6 * np.eye(3) if kind == "full" else 1e-6, 1e-9)
    for rows in (np.repeat(Z[:1], 50, axis=0), np.repeat(Z[:2], 30, axis=0), Z[:1], Z[:0]):
        result = em(folding([rows]), {0: start}, max_iter=50)[0]
        assert finite(result.mixture)
        assert np.isfinite([result.log_likelihood, result.bic, result.aic]).all()
    wide = np.array([[1e30, 0, 0], [-1e30, 1e30, 0], [3e38, 3e38, -3e38], [0, 0, 0]], np.float32)
    assert all(np.isfinite(a).all() for a in posterior(wide, start))
    assert all(np.isfinite(getattr(mixture_block(wide, start), name)).all() for name in SUMS)


def test_equal_components_go_to_the_lowest_id():
    twice = Mixture.of("spherical", np.full(2, 0.5), np.zeros((2, 2)), np.ones(2))
    labels, confidence, _ = posterior(np.ones((5, 2), np.float32), twice)
    assert labels.tolist() == [0] * 5
    assert confidence.tolist() == [0.5] * 5


@every_type
def test_a_collapsed_covariance_is_named(kind):
    Z = np.array([[0, 0], [0, 0], [0, 0], [5, 5]], np.float32)
    state = labelled_block(Z, np.array([0, 0, 0, 1], np.int32), Z[[0, 3]], kind)
    with pytest.raises(InputError, match="all components" if kind == "tied" else "component 0 of 2") as caught:
        maximise(state, reg_covar=0)
    assert "reg_covar" in str(caught.value)


@every_type
def test_memory_does_not_grow_with_the_rows(kind):
    rng = np.random.default_rng(8)
    Z = rng.normal(size=(200_000, 16)).astype(np.float32)
    mixture = some_mixture(kind, Z[:1000], 20, rng)
    tracemalloc.start()
    state = mixture_block(Z, mixture)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(state, MixtureState)
    assert peak < 2 * 2**20  # four tiles and the sums; n x k would be 32 MB

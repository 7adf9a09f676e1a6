"""Laws of the chain of minibatches; scikit-learn's MiniBatchKMeans is the oracle."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.cluster import MiniBatchKMeans

from streamclust.cluster import minibatch


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 400), min_size=1, max_size=4),
    st.sets(st.integers(1, 12), min_size=1, max_size=4),
    st.sampled_from([0.0, 100.0]),
)
def test_a_chain_goes_where_scikit_learns_minibatches_go(seed, sizes, ks, offset):
    rng = np.random.default_rng(seed)
    draw = [
        (rng.normal(size=(n, 5)) + 6 * rng.integers(0, 3, (n, 1)) + offset).astype(np.float32) for n in (50, *sizes)
    ]
    sample, *blocks = draw
    starts = {k: sample[rng.choice(len(sample), k, replace=False)] for k in ks}
    chains = minibatch.start(starts, sample)
    models = {k: MiniBatchKMeans(k, init=c, n_init=1, reassignment_ratio=0) for k, c in starts.items()}
    for model in models.values():
        model.partial_fit(sample.astype(np.float64))
    for block in blocks:
        for model in models.values():
            nearest = np.sort(np.square(model.transform(block.astype(np.float64))), axis=1)[:, :2]
            assume(nearest.shape[1] < 2 or np.diff(nearest).min() > 2e-4)  # float32 may put a row between two elsewhere
        before = {k: chain.centers.copy() for k, chain in chains.items()}
        after = minibatch.step(chains, block)
        assert all(np.array_equal(chains[k].centers, before[k]) for k in ks)  # a step may run twice
        chains = after
        for model in models.values():
            model.partial_fit(block.astype(np.float64))  # under an offset its float32 distances would cancel
    for k, centers in minibatch.centers(chains).items():
        np.testing.assert_allclose(centers, models[k].cluster_centers_, rtol=1e-4, atol=1e-3)
        assert chains[k].counts.sum() == len(sample) + sum(sizes)


def test_means_do_not_stand_still_after_millions_of_rows():
    chain = minibatch.Chain(np.zeros((1, 1)), np.array([2**26]))
    for _ in range(100):
        chain = minibatch.step({0: chain}, np.full((1000, 1), 0.01, np.float32))[0]
    np.testing.assert_allclose(chain.centers, 0.01 * 10**5 / (2**26 + 10**5), rtol=1e-5)

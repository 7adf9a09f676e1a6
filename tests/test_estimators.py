"""A fitted scikit-learn estimator over a store says what it says in memory, block by block."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

from streamclust import label_with
from streamclust import open as open_store
from streamclust.blocks import Serial
from streamclust.config import Settings
from streamclust.ingest import ingest
from streamclust.job import Job
from streamclust.readers.case import open_case
from streamclust.store.store import create


def test_labels_equal_predict_and_rows_that_are_not_valid_have_none(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6)).astype(np.float32)
    X[[3, 77], [0, 5]] = np.nan, np.inf
    (tmp_path / "day" / "descriptors").mkdir(parents=True)
    np.save(tmp_path / "day" / "descriptors" / "d.npy", X)
    (tmp_path / "day" / "images_paths.csv").write_text("path\n" + "\n".join(f"{i}.jpg" for i in range(500)))
    ingest(Job(create(tmp_path / "s.store"), Settings(), Serial()), open_case(tmp_path / "day"))
    valid = np.isfinite(X).all(axis=1)
    model = KMeans(3, n_init=1, random_state=0).fit(X[valid])
    found = label_with(open_store(tmp_path / "s.store"), "d", model).compute()
    np.testing.assert_array_equal(found[valid], model.predict(X[valid]))
    assert (found[~valid] == -2).all()

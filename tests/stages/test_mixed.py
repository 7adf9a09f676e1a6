"""The mix of descriptors: what they were reduced to, joined with equal variance and reduced again."""

from __future__ import annotations

import numpy as np
import pytest

import streamclust
from streamclust import pipeline
from streamclust.blocks import Dask, Serial
from streamclust.config import MIX
from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages import reduced
from streamclust.stages.names import name_cluster, names
from streamclust.stages.sources import load_projection, reduced_name
from streamclust.stages.watch import watch
from streamclust.store.forgetting import forget
from tests.cases import matrices, small, spoil, work, write_case
from tests.faults import chunk_bytes, contents, no_fsync

N, M = 300, 80
DIMS = {"a": 9, "b": 6, "c": 4}
SETTINGS = small(mix__of=["a", "b"])


def case_of(folder, rows=slice(None), seed=4, dims=DIMS):
    of = matrices(seed, N + M, dims)
    of["a"] = spoil(of["a"], [3, N + 4])
    if "b" in of:
        of["b"] = spoil(of["b"], [7])
    return write_case(folder, {d: X[rows] for d, X in of.items()})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with no_fsync(), chunk_bytes(2048):
        return work(
            tmp_path_factory.mktemp("mix") / "s", case_of(tmp_path_factory.mktemp("cases") / "mon", slice(N)), SETTINGS
        )


def projection_of(store, descriptor):
    model = store.snapshot.newest("model", f"{descriptor}/kmeans")
    return store.snapshot.entries[model].attributes["parents"][0]


def rows_of(store, descriptor, batch=0):
    return store.read(reduced_name(projection_of(store, descriptor), store.batches[batch]), "Z")


def joined(store, weights=(1, 1), batch=0):
    parts = []
    for d, weight in zip("ab", weights, strict=True):
        variance = load_projection(store, projection_of(store, d)).explained_variance.sum()
        parts.append(rows_of(store, d, batch).astype(float) * weight / variance**0.5)
    return np.concatenate(parts, axis=1)


def test_its_rows_are_those_of_scikit_learn_s_pca_over_what_was_joined(fitted):
    from sklearn.decomposition import PCA

    X, Z = joined(fitted.store), rows_of(fitted.store, MIX)
    valid = np.isfinite(X).all(axis=1)
    assert np.flatnonzero(~valid).tolist() == [3, 7]
    assert np.isnan(Z[~valid]).all()
    wanted = PCA(Z.shape[1]).fit(X[valid])
    found = load_projection(fitted.store, projection_of(fitted.store, MIX))
    np.testing.assert_allclose(found.explained_variance, wanted.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(np.abs(Z[valid]), np.abs(wanted.transform(X[valid])), atol=1e-4)
    assert found.explained_variance_ratio.sum() >= 0.9


def test_every_part_has_the_same_variance(fitted):
    X = joined(fitted.store)
    X = X[np.isfinite(X).all(axis=1)]
    p = rows_of(fitted.store, "a").shape[1]
    assert X[:, :p].var(axis=0).sum() == pytest.approx(X[:, p:].var(axis=0).sum(), rel=0.02)


@pytest.mark.slow
def test_it_is_a_descriptor_in_every_table_and_on_the_page(fitted):
    table = fitted.store.labels().compute()
    assert table["mix_kmeans"].notna().sum() == N - 2
    assert {"mix_fine", "mix_outlier_score", "mix_x", "mix_y"} <= set(table)
    assert table["outlier_score"].notna().sum() == N - 2
    fusion = fitted.store.snapshot.entries[fitted.store.snapshot.newest("model", "outliers")]
    assert fusion.attributes["weights"].keys() == set(DIMS), "its parts are counted once"
    page = pipeline.report(fitted).read_text()
    assert "joined from a, b" in page
    comparison = fitted.store.snapshot.entries[fitted.store.snapshot.newest("comparison", "comparison")]
    assert ["b/kmeans", "mix/kmeans"] in comparison.attributes["label"]
    assert pipeline.describe(fitted.store)["clusters"].keys() == {*DIMS, MIX}
    name_cluster(fitted.store, MIX, 1, "all of it")
    assert names(fitted.store, MIX) == {1: "all of it"}
    with pytest.raises(InputError, match="no descriptor 'mix'; expected one of a, b, c"):
        fitted.store[MIX]


@pytest.mark.parametrize("executor", [pytest.param(Serial(), marks=pytest.mark.slow), Dask(2)])
def test_the_same_on_any_executor_and_again_nothing(fitted, tmp_path, executor):
    with no_fsync(), chunk_bytes(2048):
        job = work(tmp_path / "s", case_of(tmp_path / "mon", slice(N)), SETTINGS, executor)
        found = {name: entry for name, entry in contents(job.store).items() if entry[0] != "batch"}
        number = job.store.snapshot.number
        pipeline.fit(job)
    assert job.store.snapshot.number == number
    known = {name: entry for name, entry in contents(fitted.store).items() if name in found}
    assert known == found


@pytest.mark.slow
def test_a_day_and_a_refit(tmp_path):
    """A day that lacks a part has no mix; the others are labelled as they stand, and refits keep names."""
    with no_fsync():
        job = work(tmp_path / "s", case_of(tmp_path / "mon", slice(N)), SETTINGS)
        name_cluster(job.store, MIX, 1, "lorries")
        ingest(job, open_case(case_of(tmp_path / "tue", slice(N, None))))
        ingest(job, open_case(case_of(tmp_path / "wed", slice(N, None), seed=5, dims={"a": 9})))
        said = pipeline.predict(job)
        assert said["mix labels"] == "batches/000002-tue"
        X, Z = joined(job.store, batch=1), rows_of(job.store, MIX, batch=1)
        frame = load_projection(job.store, projection_of(job.store, MIX))
        np.testing.assert_allclose(Z, (X - frame.mean) @ frame.components.T, atol=1e-4)
        cried = [alarm for name in ("batches/000002-tue", "batches/000003-wed") for alarm in watch(job, name)]
        assert {a.descriptor for a in cried if a.kind == "descriptor missing"} == {"b", "c"}, "the mix has no cause"
        table = job.store.labels().compute()
        assert table["mix_kmeans"].notna().sum() == N - 2 + M - 1
        before = job.store.snapshot.newest("model", "mix/kmeans")
        models = pipeline.fit(job)
        assert models[MIX] != before
        assert names(job.store, MIX) == {1: "lorries"}
        parents = job.store.snapshot.entries[models[MIX]].attributes["parents"]
        of = {d: parent for d, parent, _ in job.store.snapshot.entries[parents[0]].attributes["parts"]}
        assert of == {d: projection_of(job.store, d) for d in "ab"}


@pytest.mark.slow
def test_forgotten_rows_are_gone_from_it(tmp_path):
    with no_fsync():
        job = work(tmp_path / "s", case_of(tmp_path / "mon", slice(N)), SETTINGS)
        path = job.store.labels().compute()["path"][11]
        found = forget(job.store, paths=[path])
        job.store.refresh()
        assert found.left == ()
        assert any(model.startswith("models/mix-") for model in found.models)
        assert np.isnan(rows_of(job.store, MIX)[11]).all()
        pipeline.fit(job)
        assert np.isnan(rows_of(job.store, MIX)[11]).all()


@pytest.mark.slow
def test_weights_are_beside_equal_variance(tmp_path):
    with no_fsync():
        job = work(
            tmp_path / "s", case_of(tmp_path / "mon", slice(N)), small(mix__of=["a", "b"], mix__weights={"b": 3.0})
        )
    X, Z = joined(job.store, (1, 3)), rows_of(job.store, MIX)
    frame = load_projection(job.store, projection_of(job.store, MIX))
    np.testing.assert_allclose(Z, (X - frame.mean) @ frame.components.T, atol=1e-4)


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({"of": ["a", "z"]}, "setting mix.of: no descriptor 'z'; expected some of a, b, c"),
        ({"of": ["a"]}, "two different descriptors"),
        ({"of": ["a", "a"]}, "two different descriptors"),
        ({"of": ["a", "b"], "weights": {"c": 1.0}}, "weights names 'c'"),
        ({"of": ["a", "b"], "weights": {"a": 0.0}}, "greater than 0"),
    ],
)
def test_what_cannot_be_joined_is_one_line(fitted, mix, said):
    def asked():
        fitted.settings = small(**{f"mix__{key}": value for key, value in mix.items()})
        reduced.asked(fitted)

    with pytest.raises(InputError) as caught:
        asked()
    fitted.settings = SETTINGS
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_descriptor_of_that_name_is_in_the_way(tmp_path):
    with no_fsync():
        job = work(tmp_path / "s", write_case(tmp_path / "c", matrices(1, 60, {"a": 4, "b": 3, "mix": 3})))
    assert streamclust.open(job.store.path)["mix"].shape == (60, 3)
    job.settings = SETTINGS
    with pytest.raises(InputError, match="'mix' is a descriptor that came in"):
        pipeline.fit(job)

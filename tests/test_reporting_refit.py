"""The page of a refit: how many images change, from where to where, pictures of them, and how to accept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamclust import pipeline
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.render.refit import headline, render_refit
from streamclust.reporting.refit import collect_refit
from streamclust.stages.names import name_cluster
from streamclust.stages.refit import accept, propose
from tests.cases import clustered, job_on, small, write_case
from tests.faults import no_fsync
from tests.render.test_report import Page

OLD, NEW = 600, 200


@pytest.fixture(scope="module")
def proposed(tmp_path_factory):
    """Four kinds of images were fitted; a day brings a fifth, and a refit on both is proposed."""
    tmp = tmp_path_factory.mktemp("refit")
    which = np.r_[np.arange(OLD) % 4, np.full(NEW, 4)]
    X = clustered(5, OLD + NEW, 8, k=5, which=which)
    with no_fsync():
        job = job_on(tmp / "s", small(cluster__k_max=6))
        ingest(job, open_case(write_case(tmp / "mon", {"a": X[:OLD]}, pictures="zip")))
        pipeline.fit(job)
        for cluster in range(4):
            name_cluster(job.store, "a", cluster, f"<b>kind</b> {cluster}")
        ingest(job, open_case(write_case(tmp / "tue", {"a": X[OLD:]}, pictures="zip", broken=range(0, NEW, 50))))
        pipeline.predict(job)
        proposal = propose(job)
        return job, proposal, collect_refit(job, proposal)


def test_every_image_that_would_change_is_counted_once(proposed):
    _, proposal, data = proposed
    change, (found,) = proposal.changes["a"], data.descriptors
    assert (found.before, found.after) == (4, 5)
    assert sum(gain.rows for gain in found.gains) == found.changed == change.label.changed >= NEW
    for gain in found.gains:
        assert gain.rows == sum(rows for _, rows in gain.sources)
        assert all(source.id != gain.cluster.id for source, _ in gain.sources)
    assert data.rows == OLD + NEW
    assert data.days == ("mon", "tue")


def test_pictures_are_of_rows_that_change_and_the_new_cluster_comes_first(proposed):
    _, proposal, data = proposed
    first = data.descriptors[0].gains[0]
    assert first.born
    assert first.rows >= NEW
    assert proposal.changes["a"].rows.keys() == {gain.cluster.id for gain in data.descriptors[0].gains}
    rows = proposal.changes["a"].rows[first.cluster.id]
    assert [t.path for t in first.pictures] == [f"pictures/{row % OLD:05d}.jpg" for row in rows]
    assert any(t.image for t in first.pictures)


def test_the_page_says_it_and_names_are_only_text(proposed):
    job, _, data = proposed
    html = render_refit(data)
    page = Page(html)
    share = data.descriptors[0].changed / data.descriptors[0].shared
    assert headline(data) == f"{share:.1%} of a would change cluster."
    said = "".join(page.words)
    for words in (headline(data), "Refit, proposed", "from <b>kind</b> ", "is born", "would gain", "mon to tue"):
        assert words in said
    assert "<b>kind" not in html
    assert f"streamclust refit {job.store.path} --accept" in said
    assert html == render_refit(data)


def test_an_accepted_one_asks_for_nothing(proposed):
    words = "".join(Page(render_refit(replace(proposed[2], accepted=True))).words)
    assert "Refit, accepted" in words
    assert "would" not in words
    assert "--accept" not in words


@pytest.mark.parametrize(("days", "option"), [(1, " --last 1"), (["mon"], " --batch mon"), (None, "")])
def test_the_command_names_the_days(proposed, days, option):
    job = proposed[0]
    with no_fsync():
        data = collect_refit(job, propose(job, days))
    assert data.command == f"streamclust refit {job.store.path} --accept{option}"


def test_nothing_to_change(proposed):
    job = proposed[0]
    with no_fsync():
        propose(job)
        accept(job)
        data = collect_refit(job, propose(job))
    assert not data.descriptors
    assert "No image would change cluster." in "".join(Page(render_refit(data)).words)

"""Ids over a refit: laws under permutation, refinement and coarsening; the assignment against brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamclust.cluster.matching import MINIMUM, Event, counterparts, first, jaccard, match, moves

quick = settings(max_examples=60)
sizes = st.integers(1, 5)
tables = st.tuples(sizes, sizes).flatmap(lambda shape: arrays(np.int64, shape, elements=st.integers(0, 30)))


def ids_of(k: int, seed: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).permutation(3 * k)[:k]]


def of(events, kind):
    return [event for event in events if event.kind == kind]


@quick
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_labels_changes_nothing(counts, random):
    k_old, k_new = counts.shape
    old, new = list(range(k_old)), list(range(k_new))
    random.shuffle(old)
    random.shuffle(new)
    ids = ids_of(k_old, 1)
    a = match(counts, ids, 100)
    b = match(counts[np.ix_(old, new)], [ids[i] for i in old], 100)
    same = {tuple(counts[:, j]): sorted(np.array(a.ids)[(counts[:, j] == counts.T).all(axis=1)]) for j in new}
    shuffled = counts[:, new]
    for column, expected in same.items():  # columns with the same counts cannot be told apart
        assert sorted(np.array(b.ids)[(column == shuffled.T).all(axis=1)]) == expected
    assert (a.next_id, a.shared, a.changed) == (b.next_id, b.shared, b.changed)
    if len(same) == k_new:
        assert a.events == b.events
        assert [a.ids[j] for j in new] == list(b.ids)


@quick
@given(tables)
def test_no_pairing_of_strong_enough_pairs_changes_fewer_rows(counts):
    k_old, k_new = counts.shape
    found = match(counts, range(k_old), k_old)
    most = counts == counts.max(axis=0)
    strong = np.pad(np.where(most & (jaccard(counts) >= MINIMUM), counts, 0), ((0, 0), (0, k_old)))
    best = max(sum(strong[i, j] for i, j in enumerate(p)) for p in permutations(range(k_new + k_old), k_old))
    assert found.shared - found.changed == best
    for position, i in enumerate(found.ids):
        assert i >= k_old or (most[i, position] and jaccard(counts)[i, position] >= MINIMUM)


@quick
@given(tables, st.integers(0, 5))
def test_ids_are_distinct_and_none_that_is_dead_comes_back(counts, seed):
    ids = ids_of(len(counts), seed)
    found = match(counts, ids, 50)
    assert len(set(found.ids)) == len(found.ids) == counts.shape[1]
    born = {i for i in found.ids if i >= 50}
    assert set(found.ids) - born <= set(ids)
    assert born == set(range(50, found.next_id))
    assert born == {e.new[0] for e in of(found.events, "birth")}
    assert {e.old[0] for e in of(found.events, "death")} == set(ids) - set(found.ids)
    assert sum(m[2] for m in moves(counts, ids, found.ids)) == found.changed


@quick
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(0, 5))
def test_the_same_partition_keeps_every_id(rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    ids = ids_of(len(rows), seed)
    found = match(np.diag(rows)[:, order], ids, 50)
    assert list(found.ids) == [ids[i] for i in order]
    assert (found.changed, found.next_id, found.events) == (0, 50, ())


@quick
@given(st.integers(50, 1000), st.integers(50, 1000), st.floats(0.51, 0.85))
def test_a_split_keeps_its_id_on_the_larger_part_and_a_merge_the_larger_s(a, b, share):
    large = int(np.ceil(share * a))
    split = match(np.array([[a - large, large, 0], [0, 0, b]]), [7, 3], 9)
    assert split.ids == (9, 7, 3)
    assert split.changed == a - large
    assert split.events == (Event("birth", (), (9,)), Event("split", (7,), (7, 9)))
    merge = match(np.array([[a - large, 0], [large, 0], [0, b]]), [9, 7, 3], 10)
    assert merge.ids == (7, 3)
    assert merge.events == (Event("merge", (7, 9), (7,)), Event("death", (9,), ()))


@quick
@given(tables)
def test_splits_seen_backwards_are_merges(counts):
    old, new = range(len(counts)), range(counts.shape[1])
    there, back = match(counts, old, 100), match(counts.T, new, 100)
    assert len(of(there.events, "split")) == len(of(back.events, "merge"))


@quick
@given(tables, st.randoms(use_true_random=False))
def test_later_rows_count_and_have_no_say(counts, random):
    old = list(range(len(counts)))
    later = counts[:, random.sample(range(counts.shape[1]), counts.shape[1])] * 3
    alone, found = match(counts, old, len(old)), match(counts, old, len(old), later)
    assert found == replace(alone, shared=found.shared, changed=found.changed)
    assert found.shared == (counts + later).sum()
    assert found.changed == sum(rows for _, _, rows in moves(counts + later, old, found.ids))


def test_a_weak_pair_is_a_death_and_a_birth():
    counts = np.array([[90, 0], [10, 40], [0, 0]])
    assert match(counts, [0, 1, 2], 3).ids == (0, 1)
    weak = match(counts, [0, 1, 2], 3, minimum=0.85)
    assert weak.ids == (0, 3)
    assert weak.changed == 50
    assert [e.old for e in of(weak.events, "death")] == [(1,), (2,)]


def test_a_name_does_not_pass_to_a_cluster_that_is_mostly_another():
    """Old 0 falls apart, and one half comes to lie with all of old 1, which is smaller than that half."""
    found = match(np.array([[900, 700], [0, 600]]), [0, 1], 2)
    assert found.ids == (0, 2)
    assert [(e.kind, e.old, e.new) for e in found.events if e.kind != "birth"] == [
        ("split", (0,), (0, 2)),
        ("death", (1,), ()),
    ]


def test_nothing_shared_is_all_new():
    found = match(np.zeros((2, 3), np.int64), [0, 4], 5)
    assert found.ids == (5, 6, 7)
    assert [e.kind for e in found.events] == ["birth"] * 3 + ["death"] * 2


def test_a_first_clustering_s_ids_are_its_positions():
    found = first(3)
    assert found.ids == (0, 1, 2)
    assert found.next_id == 3
    assert not found.events


@pytest.mark.parametrize(("ids", "next_id"), [([0], 2), ([1, 1], 2), ([0, 2], 2)])
def test_ids_that_cannot_be_are_refused(ids, next_id):
    with pytest.raises(ValueError, match="distinct ids"):
        match(np.eye(2, dtype=np.int64), ids, next_id)


def test_moves_name_the_rows_that_change_most_first():
    counts = np.array([[5, 2, 0], [0, 7, 3]])
    assert moves(counts, [4, 6], [4, 6, 9]) == ((6, 9, 3), (4, 6, 2))


def test_a_clusters_first_rows_say_where_it_went_and_all_its_rows_how_much_that_is_worth():
    """Old 2 and 7 are now one: the one with more rows gives the id, though 7 was named on more of its own."""
    first, later = np.array([[300, 0], [800, 200]]), np.array([[3_000, 0], [0, 10]])
    found = match(first, [2, 7], 8, later)
    assert found.ids[0] == 2
    assert found.shared == 4_310


def test_later_rows_do_not_take_an_id_over():
    """A new kind lay in the only cluster, and has more rows in it than the kind that gave it its name."""
    found = match(np.array([[500, 0]]), [0], 1, np.array([[100, 5_000]]))
    assert found.ids == (0, 1)
    assert found.changed == 5_000


@quick
@given(tables)
def test_another_clustering_bears_the_ids_that_most_rows_share_and_further_ones_largest_first(counts):
    k_old, k_new = counts.shape
    old = ids_of(k_old, 2)
    found = counterparts(counts, old, 100)
    assert len(set(found)) == k_new
    shared = sum(counts[old.index(i), j] for j, i in enumerate(found) if i < 100)
    padded = np.pad(counts, ((0, max(0, k_new - k_old)), (0, max(0, k_old - k_new))))
    assert shared == max(sum(padded[i, j] for i, j in enumerate(p)) for p in permutations(range(len(padded))))
    for j, i in enumerate(found):
        assert i >= 100 or counts[old.index(i), j] > 0
    further = sorted((i, -int(counts[:, j].sum())) for j, i in enumerate(found) if i >= 100)
    assert [i for i, _ in further] == list(range(100, 100 + len(further)))
    assert [size for _, size in further] == sorted(size for _, size in further)

"""A compiled loop works whether or not what was compiled can be kept."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from numba.core import caching

from streamclust.compiled import compiled


def count(values, counts):
    for i in range(len(values)):
        counts[values[i]] += 1


@compiled
def double(values):
    for i in range(len(values)):
        values[i] *= 2


@compiled
def double_sum(values):
    double(values)
    return values.sum()


@compiled
def double_sum_of_all(values):
    double(values)
    return double_sum(values)


def test_a_loop_calls_another_of_its_file():
    values = np.arange(3.0)
    assert double_sum(values) == 6
    assert values.tolist() == [0, 2, 4]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_what_cannot_be_kept_still_runs_and_once(monkeypatch, error):
    def refuse(*_):
        raise OSError(error, "cannot be kept")

    monkeypatch.setattr(caching.IndexDataCacheFile, "load", lambda *_: None)
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", refuse)
    counts, tally = np.zeros(3, np.int64), compiled(count)
    for _ in range(2):
        tally(np.array([0, 2, 2]), counts)
    assert counts.tolist() == [2, 0, 4]


def test_what_calls_others_still_runs_and_once_where_none_can_be_kept(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "cannot be kept")

    monkeypatch.setattr(caching.IndexDataCacheFile, "load", lambda *_: None)
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", refuse)
    values = np.arange(3, dtype=np.int16)  # for which none is compiled yet
    assert double_sum_of_all(values) == 12
    assert values.tolist() == [0, 4, 8]


def test_without_a_folder_to_keep_it_in_a_loop_is_compiled_all_the_same(monkeypatch):
    import numba

    real, asked = numba.njit, []

    def njit(function, **options):
        asked.append(options.get("cache", False))
        if asked[-1]:
            message = "cannot cache function: no locator available"
            raise RuntimeError(message)
        return real(function, **options)

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled(lambda a: a + 1)(np.float32(2)) == 3
    assert asked == [True, False]

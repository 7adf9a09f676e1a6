"""The three verbs: serial, threads and a cluster of processes give the same bits, whatever the number of workers."""

from __future__ import annotations

import errno
import operator
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.blocks import Dask, Serial, Threads, executor, runs, tree
from streamclust.errors import InputError
from streamclust.remote import connecting

# Sums of floats of very different sizes: any other order of addition shows in the last bits.
VALUES = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.random.default_rng(1).integers(-8, 8, 1000)


def value(address: int, factor: float) -> float:
    return float(VALUES[address]) * factor


def add(state: float | None, address: int, factor: float) -> float:
    return (0.0 if state is None else state) + value(address, factor)


def step(state: list[int], address: int) -> list[int]:
    return [*state[-3:], state[-1] * 31 % 1009 + address]


def fail(address: int) -> int:
    raise InputError(f"row {address}", "bad")


def full(address: int) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def pause(address: int) -> None:
    time.sleep(0.6)


def total_of(address: float, values: np.ndarray) -> float:
    return address * float(values.sum())


@given(n=st.integers(1, 200), run=st.integers(1, 12), workers=st.integers(1, 4))
@settings(max_examples=40)
def test_threads_equal_serial(n, run, workers):
    addresses = list(range(n))
    serial = Serial()
    expected = serial.fold(add, addresses, operator.add, 1.5, run=run)
    for threads in (Dask(workers), Threads()):
        assert threads.map(value, addresses, 1.5) == serial.map(value, addresses, 1.5)
        assert threads.chain(step, addresses, [[1], [2]]) == serial.chain(step, addresses, [[1], [2]])
        assert threads.fold(add, addresses, operator.add, 1.5, run=run) == expected


@pytest.mark.usefixtures("cluster")
def test_two_processes_equal_serial(cluster):
    remote, serial, addresses = Dask(client=cluster), Serial(), list(range(150))
    assert remote.map(value, addresses, 2.0) == serial.map(value, addresses, 2.0)
    assert remote.fold(add, addresses, operator.add, 2.0, run=3) == serial.fold(
        add, addresses, operator.add, 2.0, run=3
    )
    assert remote.chain(step, addresses, [[1], [2]]) == serial.chain(step, addresses, [[1], [2]])


def test_runs_and_tree_depend_on_the_addresses_alone():
    assert runs([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert tree("abcde", lambda a, b: f"({a}{b})") == "(((ab)(cd))e)"


@given(count=st.integers(1, 300))
def test_neighbours_merge_level_by_level_and_few_wait(count):
    def expected(states):
        while len(states) > 1:
            pairs = [states[i : i + 2] for i in range(0, len(states), 2)]
            states = [f"({''.join(pair)})" if len(pair) == 2 else pair[0] for pair in pairs]
        return states[0]

    alive, most = 0, 0

    def states():
        nonlocal alive, most
        for i in range(count):
            alive += 1
            most = max(most, alive)
            yield f"{i},"

    def join(a, b):
        nonlocal alive
        alive -= 1
        return f"({a}{b})"

    assert tree(states(), join) == expected([f"{i}," for i in range(count)])
    assert most <= 1 + count.bit_length()


def test_threads_run_few_tasks_ahead_of_the_merge():
    threads, begun, ahead = Threads(), [], []

    def note(_state, address):
        begun.append(address)
        return 1

    def merge(a, b):
        time.sleep(0.002)  # while tasks of no length could all be done
        ahead.append(len(begun) - len(ahead))
        return a + b

    assert threads.fold(note, range(200), merge, run=1) == 200
    assert max(ahead) <= 2 * threads.threads + (200).bit_length()


@pytest.mark.parametrize("make", [Serial, Threads, Dask])
def test_no_rows_is_said(make):
    with pytest.raises(InputError, match="no rows"):
        make().fold(add, [], operator.add, 1.0)
    assert make().map(value, [], 1.0) == []


def test_a_task_s_error_comes_out_as_it_is():
    with pytest.raises(InputError, match="row 3: bad"):
        Dask(2).map(fail, [3])


def test_progress_counts_to_the_end():
    seen = []
    Dask(2, progress=lambda done, total: seen.append((done, total))).map(value, list(range(20)), 1.0)
    assert seen[-1][0] == seen[-1][1] >= 20


def test_nobody_at_the_scheduler_s_address_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(connecting, "CONNECT", "0.2s")
    with pytest.raises(InputError, match=r"no Dask scheduler answers .*expected tcp://HOST:PORT or tls://HOST:PORT"):
        executor("tcp://127.0.0.1:9", None)


@pytest.mark.parametrize("address", ["http://localhost:8786", "tcp://127.0.0.1", "8786", "host:port"])
def test_what_is_no_address_of_a_scheduler(address):
    with pytest.raises(InputError, match=r"no address of a scheduler.*expected tcp://HOST:PORT or tls://HOST:PORT"):
        executor(address, None)


@pytest.mark.usefixtures("cluster")
def test_a_task_s_error_on_a_cluster_comes_out_as_it_is(cluster):
    with pytest.raises(InputError, match="row 3: bad"):
        Dask(client=cluster).map(fail, [3])
    with pytest.raises(OSError, match="No space left"):
        Dask(client=cluster).map(full, [3])
    assert Dask(client=cluster).map(value, [3], 1.0) == [value(3, 1.0)]


@pytest.mark.usefixtures("cluster")
def test_progress_on_a_cluster_counts_up(cluster):
    seen = []
    Dask(client=cluster, progress=lambda done, total: seen.append((done, total))).map(pause, list(range(8)))
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {8}
    assert 0 < seen[-1][0] <= 8


@pytest.mark.usefixtures("cluster")
def test_a_model_of_many_bytes_travels_without_a_word(cluster):
    large = np.ones((4_000, 1_000))  # a warning would be an error here
    assert Dask(client=cluster).map(total_of, [2.0], large) == [8e6]


@pytest.mark.parametrize("make", [Serial, Threads, Dask])
def test_closing_twice_does_no_harm(make):
    found = make()
    found.close()
    found.close()
    assert found.map(value, [3], 1.0) == [value(3, 1.0)]

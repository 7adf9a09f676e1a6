"""What a stage is said to have held is what the whole tree of processes held, asked for at little cost."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import psutil
import pytest

from streamclust import journal
from streamclust.journal import Journal, PeakMemory, TreeMemory

MB = 2**20
CHILD = "held = bytearray(b'x') * (200 * 2**20); print('ready', flush=True); input()"
PARENT = """
import subprocess, sys
from streamclust.journal import TreeMemory
tree = TreeMemory()
print(tree.bytes())
with subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=-1, stdout=-1, text=True) as child:
    child.stdout.readline()
    print(tree.bytes())
    child.communicate("\\n")
print(tree.bytes())
"""
FORKED = """
import os, sys
from streamclust.journal import TreeMemory
held = bytearray(b'x') * (200 * 2**20)
alone = TreeMemory().bytes()
read, write = os.pipe()
if not (child := os.fork()):
    os.read(read, 1)
    os._exit(0)
both = TreeMemory().bytes()
os.write(write, b'.')
os.waitpid(child, 0)
print(alone, both)
"""


def test_a_child_s_memory_counts_while_it_lives():
    done = subprocess.run([sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, check=True)
    before, during, after = map(int, done.stdout.split())
    assert during > before + 150 * MB
    assert after < before + 50 * MB


def test_pages_that_are_shared_count_once():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    alone, both = map(int, done.stdout.split())
    assert alone > 200 * MB
    assert abs(both - alone) < 50 * MB


def test_asking_takes_little_of_the_time(monkeypatch):
    asked = []

    def slow(process):
        asked.append(process.pid)
        time.sleep(0.1)
        return 1

    monkeypatch.setattr(journal, "_proportional", slow)
    monkeypatch.setattr(journal, "_TREE", TreeMemory())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1), PeakMemory(0.001):
        time.sleep(2)
    assert len(set(asked)) > 1
    assert asked.count(os.getpid()) < 6


def test_what_was_allocated_and_freed_is_the_peak():
    kept = Journal()
    with pytest.raises(ZeroDivisionError), kept.stage("one", 3):
        raise ZeroDivisionError
    assert kept.stages == []
    with PeakMemory(0.01) as memory:
        before = memory.peak
        held = bytearray(b"x") * (200 * MB)
        time.sleep(0.3)
        del held
        time.sleep(0.1)
    assert memory.peak > before + 150 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the mark")
def test_no_peak_of_this_process_is_too_short_to_be_seen():
    before = psutil.Process().memory_info().rss
    with PeakMemory(3600) as memory:
        bytearray(b"x") * (200 * MB)
    assert memory.peak > before + 150 * MB
    with PeakMemory(3600) as memory:
        pass
    assert memory.peak < before + 100 * MB


HEAP = """
import numpy as np, psutil
from streamclust.journal import Journal
with Journal().stage("one", 1):
    held = [np.ones(8000) for _ in range(3000)]  # of the heap, whose end stays in use
    del held[:-1]
    before = psutil.Process().memory_info().rss
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's heap")
def test_what_a_stage_freed_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100 * MB


LARGE = """
import contextlib, sys
import numpy as np, psutil
from streamclust.journal import large_arrays_go_back
np.ones(3 * 2**20)  # 24 MB, after which glibc keeps 16 MB
with large_arrays_go_back() if sys.argv[1] == "back" else contextlib.nullcontext():
    before = psutil.Process().memory_info().rss
    large = [np.ones(2**21) for _ in range(8)]
    small = np.ones(8000)  # lies beyond them on the heap
    del large
    print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's heap")
@pytest.mark.parametrize("how", ["back", "kept"])
def test_large_arrays_go_back_when_they_are_freed(how):
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", LARGE, how], capture_output=True, text=True, check=True, env=env)
    assert int(done.stdout) < 8 * MB if how == "back" else int(done.stdout) > 100 * MB

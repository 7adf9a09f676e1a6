"""What every test may use: the shared real data (skipped by name where it is absent)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
settings.register_profile("laws", deadline=None)  # machines are shared: no law is about time
settings.load_profile("laws")
SHARED_DATA = Path(os.environ.get("STREAMCLUST_DATA", ROOT.parent / "shared" / "data"))


def shared_data(name: str) -> Path:
    """The path of a file or folder of the shared data, or a skip that names it."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"shared data not here: {name}", allow_module_level=True)
    return path


@pytest.fixture(scope="session")
def cluster():
    """A client of a real cluster of two worker processes on loopback."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1") as processes,
        Client(processes, set_as_default=False) as client,
    ):
        yield client

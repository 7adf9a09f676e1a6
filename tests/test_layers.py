"""Each room imports only from rooms before it; only the store knows Zarr; mathematics knows neither Dask nor files."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "streamclust"
ROOMS = [
    ["errors", "compiled"],
    ["config"],
    ["sampling", "moments", "preprocessing", "metrics", "counts", "quantiles", "embedding", "forces", "cluster"],
    ["decomposition", "outliers", "fusion", "evidence", "planning", "bursts", "streams", "tiling"],
    ["detector", "tallies", "steps"],
    ["drift", "costs"],
    ["remote"],
    ["blocks", "journal", "readers"],
    ["store"],
    ["job", "rates", "budget"],
    ["images", "exporting", "estimators", "streaming"],
    ["ingest", "upkeep"],
    ["stages"],
    ["render"],
    ["reporting"],
    ["pipeline"],
    ["daily", "repair"],
    ["terminal"],
    ["demo"],
    ["cli", "__init__"],
    ["__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
MATHEMATICS = {room for rooms in ROOMS[2:6] for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its room"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "streamclust" else {str(node.module)}
    return found


def test_every_room_has_its_place():
    assert {room_of(path) for path in FILES} <= set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_come_from_before(path):
    room = room_of(path)
    for name in imports(path):
        first, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if first == "streamclust" and other in LEVEL and room != "__init__":
            assert other == room or LEVEL[other] < LEVEL[room] or (room in MATHEMATICS and other in MATHEMATICS), (
                f"{room} imports {other}, which is not before it"
            )
        assert first != "zarr" or room == "store", f"{room} imports zarr: only the store may"
        assert first not in {"dask", "distributed", "zarr"} or room not in MATHEMATICS, f"{room} is mathematics"
        assert first != "pickle" or room == "demo", f"{room} imports pickle: nothing here may read one"


def test_no_public_name_is_hidden_by_a_module_of_the_same_name():
    """Importing ``package.name`` sets it on the package: a module called like a public function would replace it."""
    import streamclust

    assert not set(streamclust.__all__) & {room_of(path) for path in FILES}
    for name in streamclust.__all__:
        assert getattr(streamclust, name) is getattr(streamclust, name)
        assert type(getattr(streamclust, name)).__name__ != "module"


def test_every_process_loads_only_what_it_needs():
    """These take half a second and more each; workers, readers and commands that do without start without."""
    heavy = {"dask", "distributed", "datashader", "matplotlib", "numba", "pandas", "scipy", "sklearn"}
    code = f"import streamclust.pipeline, sys; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"

"""The made-up reference case: readable by pickle, the same every time, and with the spectrum and junk it promises."""

from __future__ import annotations

import csv
import hashlib
import pickle
import sys
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.benchmarks.generator import DIMS, pickle_envelope, write_reference_case
from tests.benchmarks.memory import measure
from tests.benchmarks.truth import BLOCK, FACTORS, Rows

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"osnet": 64, "colour": 32}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reference_case(tmp_path_factory.mktemp("case"), n=3 * BLOCK + 5, dims=DIMS | {"effnet": 640}, seed=3)


def load(folder: Path, name: str) -> np.ndarray:
    return pickle.loads((folder / "descriptors" / f"{name}.pickle").read_bytes())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_envelope_is_what_pickle_itself_writes_around_a_large_array():
    X = np.arange(3 * 16_384, dtype=np.float32).reshape(-1, 3)
    head, tail = pickle_envelope(X.shape)
    assert head + X.tobytes() + tail == pickle.dumps(X, protocol=4)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (70_000, 2)])
def test_envelope_of_any_size_loads(shape: tuple[int, int]):
    X = np.random.default_rng(0).random(shape, np.float32)
    head, tail = pickle_envelope(shape)
    np.testing.assert_array_equal(pickle.loads(head + X.tobytes() + tail), X)


def test_envelope_beyond_4_gib_has_an_eight_byte_length():
    head, _ = pickle_envelope((500_000, 2560))
    assert head[-9:] == b"\x8e" + (4 * 500_000 * 2560).to_bytes(8, "little")


def test_same_seed_same_bytes_on_any_number_of_threads(tmp_path: Path):
    first, second, other = (
        digests(write_reference_case(tmp_path / name, 2 * BLOCK + 9, SMALL, seed, threads=threads, pictures=True))
        for name, seed, threads in (("a", 0, 1), ("b", 0, 3), ("c", 1, 2))
    )
    assert first == second
    assert all(first[name] != other[name] for name in first)
    assert "row_data/images.zip" in first


def test_longer_case_begins_with_the_shorter(tmp_path: Path):
    short, long = (write_reference_case(tmp_path / str(n), n, SMALL) for n in (300, BLOCK + 300))
    np.testing.assert_array_equal(load(short, "osnet"), load(long, "osnet")[:300])
    assert table(short / "truth.csv")[:300] == table(long / "truth.csv")[:300]


def test_tables_and_descriptors_describe_the_same_rows(case: Path):
    paths, truth = table(case / "images_paths.csv"), table(case / "truth.csv")
    assert [int(row[""]) for row in paths] == list(range(3 * BLOCK + 5))
    assert [row["paths"] for row in paths] == [row["path"] for row in truth]
    assert len({row["paths"] for row in paths}) == len(paths)
    assert sorted(row["time"] for row in paths) == [row["time"] for row in paths]
    for name, d in (DIMS | {"effnet": 640}).items():
        X = load(case, name)
        assert (X.shape, X.dtype, X.flags.c_contiguous) == ((len(paths), d), np.float32, True)
        assert np.isfinite(X).all()


@pytest.mark.parametrize("name", DIMS)
def test_a_fifth_of_the_components_holds_nine_tenths_of_the_variance(case: Path, name: str):
    values = np.linalg.eigvalsh(np.corrcoef(load(case, name).T))[::-1]
    needed = np.searchsorted(np.cumsum(values) / values.sum(), 0.9) + 1
    assert 0.15 <= needed / len(values) <= 0.25
    assert 0.05 < values[0] / values.sum() < 0.35


@pytest.mark.parametrize("name", DIMS)
def test_columns_differ_in_scale_and_offset(case: Path, name: str):
    X = load(case, name)
    assert X.std(0).max() > 20 * X.std(0).min() > 0
    assert np.ptp(X.mean(0) / X.std(0)) > 4


@pytest.mark.parametrize("name", DIMS)
def test_near_duplicates_lie_close_to_the_row_they_repeat(case: Path, name: str):
    truth, X = table(case / "truth.csv"), load(case, name)
    index = {row["path"]: i for i, row in enumerate(truth)}
    pairs = np.array([(i, index[row["repeats"]]) for i, row in enumerate(truth) if row["repeats"]])
    assert 0.04 < len(pairs) / len(truth) < 0.06
    assert (pairs[:, 1] < pairs[:, 0]).all()
    Z = (X - X.mean(0)) / X.std(0)
    distance = np.linalg.norm(Z[pairs[:, 0]] - Z[pairs[:, 1]], axis=1)
    strangers = np.linalg.norm(Z[pairs[:, 0]] - Z[np.roll(pairs[:, 1], 1)], axis=1)
    assert distance.max() < 0.3 * strangers.min()
    assert all(truth[i][f] == truth[j][f] for i, j in pairs for f in FACTORS)


def test_junk_is_scattered_and_in_clumps_of_20_to_200():
    blocks = [Rows.draw(0, block) for block in range(60)]
    sizes = [count for rows in blocks for clump, count in Counter(rows.clump.tolist()).items() if clump]
    assert len(sizes) == 20
    assert 20 <= min(sizes) < 80
    assert 140 < max(sizes) <= 200
    junk = np.concatenate([rows.junk for rows in blocks]) > 0
    clumped = np.concatenate([rows.clump for rows in blocks]) > 0
    assert 0.012 < (junk & ~clumped).mean() < 0.018
    assert 0.01 < clumped.mean() < 0.03
    assert all((rows.junk[rows.repeats[rows.repeats >= 0]] == 0).all() for rows in blocks)


def test_every_descriptor_sees_the_factor_it_is_for_and_junk_to_its_own_extent(case: Path):
    truth = table(case / "truth.csv")
    vehicles = np.array([row["kind"] == "vehicle" for row in truth])
    strange = {}
    for name in DIMS:
        Z = load(case, name)
        Z = (Z - Z.mean(0)) / Z.std(0)
        norm = np.square(Z).mean(1)
        strange[name] = norm[~vehicles].mean() / norm[vehicles].mean()
        shares = {f: _between(Z[vehicles], np.array([row[f] for row in truth])[vehicles]) for f in FACTORS}
        assert 0.02 < max(shares.values()) < 0.6
        if name in {"colour", "type"}:
            assert max(shares, key=shares.get) == {"colour": "colour", "type": "body"}[name]
    assert len({round(value, 2) for value in strange.values()}) == len(strange)
    assert max(strange.values()) > 1.2


def _between(Z: np.ndarray, labels: np.ndarray) -> float:
    """The share of the variance that lies between the groups."""
    middle = Z.mean(0)
    groups = [Z[labels == name] for name in np.unique(labels)]
    return sum(len(g) * np.square(g.mean(0) - middle).sum() for g in groups) / np.square(Z - middle).sum()


def test_memory_stays_when_rows_grow(tmp_path: Path):
    script = (
        "import sys; from pathlib import Path; from tests.benchmarks.generator import write_reference_case as w;"
        "w(Path(sys.argv[1]), int(sys.argv[2]), {'a': 512})"
    )
    short, long = (measure([sys.executable, "-c", script, str(tmp_path / str(n)), str(n)]) for n in (8_000, 60_000))
    assert short.returncode == long.returncode == 0
    assert long.peak < short.peak + 16e6 < 300e6

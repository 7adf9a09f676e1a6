"""Settings: flags over the file over defaults; what is wrong is said in one line that names the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamclust.config import Settings, load_settings, parse_bytes
from streamclust.errors import InputError


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('seed = 3\nmemory = "2GB"\n[cluster]\nk = 7\nk_max = 9\n')
    found = load_settings(path, {"cluster.k": 5, "seed": None, "outliers.budget": 0.02})
    assert (found.seed, found.cluster.k, found.cluster.k_max, found.outliers.budget) == (3, 5, 9, 0.02)
    assert found.memory_bytes == 2 * 10**9
    assert load_settings() == Settings()


@given(lo=st.integers(1, 30), more=st.integers(0, 30), k=st.integers(1, 100))
def test_a_chosen_k_joins_the_sweep(lo, more, k):
    ks = load_settings(None, {"cluster.k_min": lo, "cluster.k_max": lo + more, "cluster.k": k}).cluster.ks
    assert set(ks) == {*range(lo, lo + more + 1), k}
    assert list(ks) == sorted(ks)


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4e9), ("512 MiB", 2**29), ("1.5tb", 1.5e12), ("77", 77), ("8 kB", 8000), ("1GiB", 2**30)]
)
def test_amounts_of_memory(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["4 bananas", "", "GB", "-1GB", "nan", "inf", "1e30GB", "0", "4GBB", "1 2GB"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(InputError, match="setting memory"):
        load_settings(None, {"memory": text})


WRONG = {
    "[cluster]\nk = 0": "setting cluster.k",
    "[cluster]\nkk = 3": "setting cluster.kk.*unknown key.*fine_k",
    "colour = 1": "setting colour.*unknown key.*cluster",
    "[cluster]\nk_min = 9\nk_max = 3": "setting cluster.*k_min = 9 is above k_max = 3",
    "[reduce]\nscaler = 'best'": "setting reduce.scaler.*standard",
    "[outliers]\nbudget = 1.5": "setting outliers.budget",
    "[algorithms]\nk = 'best'": "setting algorithms.k.*'best' is neither .kmeans.* nor .own.* nor a number above 0",
    "[algorithms]\nk = 0": "setting algorithms.k.*0 is neither .kmeans. ",
    "[algorithms]\nk = 2.5": "setting algorithms.k.*2.5 is neither .kmeans. ",
    "[algorithms]\nk = true": "setting algorithms.k.*True is neither .kmeans. ",
    "[algorithms]\nk = 30": "settings.*algorithms.k = 30 is not tried.*expected 2 to 20",
    "memory = 4": "setting memory",
    "cluster = 3": "setting cluster",
    "seed = -1": "setting seed",
    "not toml": "not a readable TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=WRONG[text]) as error:
        load_settings(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, kind):
    path = Path("/dev/zero") if kind == "device" else tmp_path / "s.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputError, match="is no regular file; expected a TOML file"):
        load_settings(path)


def test_a_file_that_is_not_there_and_a_flag_under_no_section(tmp_path):
    with pytest.raises(InputError, match="no such settings file"):
        load_settings(tmp_path / "none.toml")
    path = tmp_path / "s.toml"
    path.write_text("cluster = 3")
    with pytest.raises(InputError, match="setting cluster"):
        load_settings(path, {"cluster.k": 3})


FLAGS = {"workers": "--workers", "memory": "--memory", "seed": "--seed", "cluster.k": "--k"}


@pytest.mark.parametrize("key", FLAGS)
def test_a_wrong_value_is_blamed_on_where_it_came_from(tmp_path, key):
    """Beside a file without fault, and one that is at fault beside a flag without."""
    path, (section, _, name) = tmp_path / "s.toml", key.rpartition(".")
    path.write_text("[map]\nrows = 500\n")
    with pytest.raises(InputError) as error:
        load_settings(path, {key: "-1"})
    assert str(error.value).startswith(f"setting {key} ({FLAGS[key]}): ")
    assert str(path) not in str(error.value)
    path.write_text(f'[{section}]\n{name} = "-1"\n' if section else f'{name} = "-1"\n')
    with pytest.raises(InputError, match=f"^setting {key} in {path}: "):
        load_settings(path, {other: 10 for other in ("cluster.k", "seed") if other != key})

"""Pickles of other things, hostile pickles and damaged pickles: one clear error each, and nothing runs."""

from __future__ import annotations

import base64
import collections
import contextlib
import os
import pickle
import zlib
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.pickles import open_pickle

X = np.arange(6, dtype=np.float32).reshape(2, 3)

# pickle.dumps(X, protocol) under NumPy 1.26.4
NUMPY_1 = {
    3: "gANjbnVtcHkuY29yZS5tdWx0aWFycmF5Cl9yZWNvbnN0cnVjdApxAGNudW1weQpuZGFycmF5CnEBSwCFcQJDAWJxA4dxBFJxBShLAUsCSwOGcQ"
    "ZjbnVtcHkKZHR5cGUKcQdYAgAAAGY0cQiJiIdxCVJxCihLA1gBAAAAPHELTk5OSv////9K/////0sAdHEMYolDGAAAAAAAAIA/AAAAQAAAQEAA"
    "AIBAAACgQHENdHEOYi4=",
    4: "gASVogAAAAAAAACMFW51bXB5LmNvcmUubXVsdGlhcnJheZSMDF9yZWNvbnN0cnVjdJSTlIwFbnVtcHmUjAduZGFycmF5lJOUSwCFlEMBYpSHlF"
    "KUKEsBSwJLA4aUaAOMBWR0eXBllJOUjAJmNJSJiIeUUpQoSwOMATyUTk5OSv////9K/////0sAdJRiiUMYAAAAAAAAgD8AAABAAABAQAAAgEAA"
    "AKBAlHSUYi4=",
    5: "gAWVjQAAAAAAAACMEm51bXB5LmNvcmUubnVtZXJpY5SMC19mcm9tYnVmZmVylJOUKJYYAAAAAAAAAAAAAAAAAIA/AAAAQAAAQEAAAIBAAACgQJ"
    "SMBW51bXB5lIwFZHR5cGWUk5SMAmY0lImIh5RSlChLA4wBPJROTk5K/////0r/////SwB0lGJLAksDhpSMAUOUdJRSlC4=",
}


def refusal(tmp_path: Path, data: bytes) -> InputError:
    path = tmp_path / "x.pickle"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_pickle(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_numpy_1(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(base64.b64decode(NUMPY_1[protocol]))
    np.testing.assert_array_equal(open_pickle(path).read(0, 2), X)


def test_a_read_only_array_of_protocol_5(tmp_path: Path) -> None:
    """Its bytes are a bytes object rather than a bytearray."""
    for size in (2, 40, 40_000):
        x = np.ones((size, 3), np.float32)
        x.flags.writeable = False
        path = tmp_path / "x.pickle"
        path.write_bytes(pickle.dumps(x, protocol=5))
        np.testing.assert_array_equal(open_pickle(path).read(0, size), x)


def joblib_bytes(tmp_path: Path) -> bytes:
    joblib.dump(X, tmp_path / "x.joblib")
    return (tmp_path / "x.joblib").read_bytes()


OTHERS = [
    (X.tolist(), "a list"),
    ([X, X], "a list"),
    ({"osnet": X}, "a dict"),
    (collections.OrderedDict(a=X), "a dict"),
    ((X, X), "a tuple"),
    (None, "a NoneType"),
    (True, "a bool"),
    (7, "a int"),
    (2.5, "a float"),
    (10**700, "a large integer"),
    ("text", "a str"),
    ("text" * 1000, "a text of 4,000"),
    (b"bytes", "a byte string"),
    (X.dtype, "a dtype"),
    (np.float32(1), "a NumPy scalar"),
    (np.ma.masked_array(X, X > 2), "a masked array"),
    (np.asmatrix(X), "a numpy.matrix"),
    (pd.DataFrame(X), "a pandas DataFrame"),
    (pd.Series(X[0]), "a pandas Series"),
    (scipy.sparse.csr_matrix(X), "a sparse matrix"),
    (np.ndarray, "a class"),
]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(("value", "words"), OTHERS, ids=[words for _, words in OTHERS])
def test_honest_pickles_of_other_things(tmp_path: Path, value: object, words: str, protocol: int) -> None:
    error = refusal(tmp_path, pickle.dumps(value, protocol=protocol))
    assert words in error.found
    assert type(error) is InputError
    assert "numpy.save" in error.hint or "text" in words


def test_other_files_under_the_name(tmp_path: Path) -> None:
    good = pickle.dumps(X, protocol=4)
    out_of_band = pickle.dumps(X, protocol=5, buffer_callback=[].append)
    for data, words in [
        (pickle.dumps(X, protocol=2), "a pickle of protocol 2"),
        (pickle.dumps(X, protocol=1), "protocol 0 or 1"),
        (pickle.dumps(X, protocol=0), "protocol 0 or 1"),
        (b"\x80\x06" + good[2:], "a pickle of protocol 6"),
        (zlib.compress(good), "compressed by zlib"),
        (joblib_bytes(tmp_path), "a joblib file"),
        (b"\x93NUMPY\x01\x00", "a .npy file"),
        (b"", "an empty file"),
        (b"\x80", "no pickle"),
        (b"index,path\n", "no pickle at all"),
        (pickle.dumps({1, 2}, protocol=4), "a set"),
        (out_of_band, "outside the file"),
        (good + good, "bytes after the array"),
        (good + b"\0", "1 bytes after the array"),
    ]:
        error = refusal(tmp_path, data)
        assert words in error.found
        assert type(error) is InputError


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call[0], self.call[1:]


def string(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def attacks(command: str) -> dict[str, bytes]:
    """Programs that would run ``command``, by a pickle's every way of calling something."""
    run = string(command)
    system = string("os") + string("system") + b"\x93"
    start = b"\x80\x04"
    good = pickle.dumps(X, protocol=4)
    first = good[11:]  # after PROTO and FRAME
    return {
        "REDUCE": start + system + run + b"\x85R.",
        "REDUCE by GLOBAL": b"\x80\x03cos\nsystem\n" + run + b"\x85R.",
        "INST": start + b"(" + run + b"ios\nsystem\n.",
        "OBJ": start + b"(" + system + run + b"o.",
        "NEWOBJ": start + system + run + b"\x85\x81.",
        "NEWOBJ_EX": start + system + run + b"\x85}\x92.",
        "names from the memo": start + string("os") + b"\x94" + string("system") + b"\x94\x86h\x00h\x01\x93" + run
        + b"\x85R\x86.",
        "numpy's own runstring": start + string("numpy.testing._private.utils") + string("runstring") + b"\x93"
        + string(f"import os; os.system({command!r})") + b"}\x86R.",
        "before an array": start + system + run + b"\x85R0" + first,
        "after an array": good[:-1] + system + run + b"\x85R0.",
        "in place of a dtype": good.replace(string("numpy") + b"\x94" + string("ndarray"), system * 2)[:-1] + b".",
        "by pickle itself": start + string("pickle") + string("loads") + b"\x93C\x02N.\x85R.",
        "by builtins": start + string("builtins") + string("exec") + b"\x93" + run + b"\x85R.",
    }  # fmt: skip


def test_nothing_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    programs = attacks(f"touch {canary}")
    for protocol in (3, 4, 5):
        programs[f"pickled, protocol {protocol}"] = pickle.dumps(Evil(os.system, f"touch {canary}"), protocol)
    proven = {name for name in programs if runs(programs[name], canary)}
    assert {"REDUCE", "REDUCE by GLOBAL", "INST", "OBJ", "names from the memo", "after an array"} <= proven
    assert any("pickled" in name for name in proven)
    for name, data in programs.items():
        error = refusal(tmp_path, data)
        assert isinstance(error, HostileFileError), name
        assert not canary.exists(), name


def runs(data: bytes, canary: Path) -> bool:
    """Whether Python's own unpickler would run the command: an attack that could not work proves nothing."""
    with contextlib.suppress(Exception):
        pickle.loads(data)
    found = canary.exists()
    canary.unlink(missing_ok=True)
    return found


def test_nothing_runs_inside_honest_containers(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = Evil(os.system, f"touch {canary}")
    for value in ([evil], {"x": evil}, np.array([[evil]], dtype=object), pd.DataFrame({"x": [evil]}), (X, evil)):
        refusal(tmp_path, pickle.dumps(value, protocol=4))
        assert not canary.exists()


def hostile_programs() -> dict[str, bytes]:
    start, good, big = b"\x80\x04", pickle.dumps(X, protocol=4), (1 << 63).to_bytes(8, "little")
    plain, shape = pickle.dumps(X, protocol=3), b"K\x02K\x03\x86"  # protocol 3 has no frames, so any length will do
    dtype = string("numpy") + string("dtype") + b"\x93"
    return {
        "EXT1": start + b"\x82\x01.", "EXT2": start + b"\x83\x01\x00.", "EXT4": start + b"\x84\x01\x00\x00\x00.",
        "PERSID": start + b"Pabc\n.", "BINPERSID": start + b"NQ.",
        "endless MARKs": start + b"(" * 100_000, "endless NONEs": start + b"N" * 100_000,
        "endless work": start + b"N" + b"\x85" * 100_000 + b".",
        "a tuple of tuples of tuples": start + b"N" + b"\x94h\x00\x86\x94h\x01\x86" * 300 + b".",
        "a cyclic memo": start + b")\x94h\x00\x85\x94h\x01b.",
        "an array that is its own state": plain[:-1] + b"h\x05\x85b.",
        "2^63 bytes": start + b"\x8e" + big, "2^63 bytearray": start + b"\x96" + big,
        "2^63 frame": start + b"\x95" + big,
        "an endless name": start + b"c" + b"a" * 10_000,
        "a second protocol": start + start + good[2:], "a nested pickle": good[:-1] + good[2:],
        "a memo never set": start + b"h\x05.", "memo of nothing": start + b"\x94.", "memo of a MARK": start + b"(\x94.",
        "an empty stack": start + b".", "a lone MARK": start + b"(.", "a tuple never opened": start + b"Nt.",
        "two values": start + b"NN.", "pop beyond": start + b"\x87.", "call of nothing": start + b"NN\x85R.",
        "a dtype of a dtype": start + dtype + dtype + b"\x85R.", "a dtype built by a dict": start + dtype + b"N\x85b.",
        "names that are numbers": start + b"K\x01K\x02\x93.", "no UTF-8": start + b"\x8c\x02\xff\xfe.",
        "a text opcode of protocol 0": start + b"S'abc'\n.",
        "an array without bytes": plain[: plain.index(b"(")] + b".",
        "another shape": plain.replace(shape, b"K\x02K\x04\x86"),
        "a negative shape": plain.replace(shape, b"J\xfe\xff\xff\xffJ\xfd\xff\xff\xff\x86"),
        "a shape that overflows": plain.replace(shape, b"\x8a\x08" + bytes(7) + b"\x40K\x04\x86"),
        "a shape of texts": plain.replace(shape, b"X\0\0\0\0X\0\0\0\0\x86"),
        "an integer of 200 bytes": start + b"\x8a\xc8" + bytes(200) + b".",
        "control characters": start + string("os\x1b[2J") + string("system") + b"\x93.",
    }  # fmt: skip


@pytest.mark.parametrize("name", hostile_programs())
def test_hostile_programs(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path, hostile_programs()[name])
    assert isinstance(error, HostileFileError)
    assert "\x1b" not in str(error)


def test_a_cut_file_is_an_honest_mistake(tmp_path: Path) -> None:
    for protocol in (3, 4, 5):
        whole = pickle.dumps(np.ones((100, 10), np.float32), protocol=protocol)
        for end in {*range(2, 40), len(whole) // 2, len(whole) - 1}:
            error = refusal(tmp_path, whole[:end])
            assert "truncated" in error.found
            assert type(error) is InputError


def test_mutations(tmp_path: Path) -> None:
    """Whatever happens to the bytes, the file is read or refused."""
    rng, path = np.random.default_rng(7), tmp_path / "x.pickle"
    seeds = [pickle.dumps(np.asarray(X, order=order), protocol) for protocol in (3, 4, 5) for order in "CF"]
    seeds += [base64.b64decode(text) for text in NUMPY_1.values()] + list(attacks("true").values())
    outcomes = collections.Counter()
    for _ in range(4000):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 4)):
            mutate(data, rng, seeds)
        path.unlink(missing_ok=True)  # some file systems wait for the disk when a file is cut and written again
        path.write_bytes(data)
        try:
            source = open_pickle(path)
            outcomes[source.read(0, source.shape[0]).ndim] += 1
        except InputError as error:
            outcomes[type(error).__name__] += 1
    assert min(outcomes[2], outcomes["InputError"], outcomes["HostileFileError"]) > 50


def mutate(data: bytearray, rng: np.random.Generator, seeds: list[bytes]) -> None:
    """Change a byte, drop some, repeat some, or put in a piece of another file."""
    at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 9))
    other = seeds[rng.integers(len(seeds))]
    begin = int(rng.integers(len(other)))
    match rng.integers(5):
        case 0 | 1:
            data[at : at + 1] = bytes([rng.integers(256)])
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length]
        case _:
            data[at:at] = other[begin : begin + length]
    if not data:
        data.append(0)

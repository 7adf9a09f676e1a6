"""Pickles of other things, hostile pickles and damaged pickles: one clear error each, and nothing runs."""

from __future__ import annotations

import base64
import collections
import contextlib
import os
import pickle
import tracemalloc
import zlib
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from streamclust.errors import HostileFileError, InputError
from tests.readers.opening import matrices, readable

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
        matrices(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_numpy_1(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(base64.b64decode(NUMPY_1[protocol]))
    np.testing.assert_array_equal(readable(path).read(0, 2), X)


def test_a_read_only_array_of_protocol_5(tmp_path: Path) -> None:
    """Its bytes are a bytes object rather than a bytearray."""
    for size in (2, 40, 40_000):
        x = np.ones((size, 3), np.float32)
        x.flags.writeable = False
        path = tmp_path / "x.pickle"
        path.write_bytes(pickle.dumps(x, protocol=5))
        np.testing.assert_array_equal(readable(path).read(0, size), x)


_HEAD_2 = (
    "cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n(I1\n(I2\nI3\ntp7\n"
)
_TYPE_2 = "cnumpy\ndtype\np8\n(S'f4'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'<'\np12\nNNNI-1\nI-1\nI0\ntp13\nbI00\n"
PYTHON_2 = [  # as Python 2 spelled an array, in protocols 0 and 2
    (_HEAD_2 + _TYPE_2).encode() + b"S" + repr(X.tobytes())[1:].encode() + b"\np14\ntp15\nb.",
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03(K\x01K\x02K\x03"
    b"\x86cnumpy\ndtype\nq\x04U\x02f4K\x00K\x01\x87Rq\x05(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x18\x00"
    b"\x00\x00" + X.tobytes() + b"tb.",
]


def test_arrays_of_python_2(tmp_path: Path) -> None:
    for data in PYTHON_2:
        np.testing.assert_array_equal(pickle.loads(data, encoding="latin-1"), X)
        (tmp_path / "x.pickle").write_bytes(data)
        np.testing.assert_array_equal(readable(tmp_path / "x.pickle").read(0, 2), X)


Y = np.asfortranarray(np.arange(20, dtype=">f8").reshape(4, 5))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5, "joblib"])
def test_dicts_and_lists(tmp_path: Path, protocol: int | str) -> None:
    """A dict gives descriptors by name, a list parts in order, and arrays that are no matrices are passed over."""
    path, third = tmp_path / "x.pickle", X.astype(np.float16)
    named = collections.OrderedDict({"osnet": X, "labels": X[0], "vdc": [Y, Y[:1]], "cube": X[None]})
    for value, expected in [
        (named, {"osnet": X, "vdc": np.concatenate([Y, Y[:1]])}),
        (dict(named), {"osnet": X, "vdc": np.concatenate([Y, Y[:1]])}),
        ([X, third, X], {"": np.concatenate([X, third, X])}),
        ([third], {"": third}),
        ({f"d{i}": X + i for i in range(1500)}, {f"d{i}": X + i for i in range(1500)}),
    ]:
        path.write_bytes(joblib_bytes(tmp_path, value) if protocol == "joblib" else pickle.dumps(value, protocol))
        found = matrices(path)
        assert list(found) == list(expected)
        for name, x in expected.items():
            np.testing.assert_array_equal(found[name].read(1, len(x)), x[1:])
            assert found[name].dtype == (np.float16 if x.dtype == np.float16 else np.float32)


@pytest.mark.parametrize("protocol", [0, 2])
def test_decoding_takes_little_memory(tmp_path: Path, protocol: int) -> None:
    x = np.random.default_rng(0).normal(size=(200_000, 20)).astype(np.float32)
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(x, protocol))
    tracemalloc.start()
    try:
        source = readable(tmp_path / "x.pickle")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 2
    np.testing.assert_array_equal(source.read(123_456, 123_556), x[123_456:123_556])


def joblib_bytes(tmp_path: Path, value: object = X, **how: int) -> bytes:
    joblib.dump(value, tmp_path / "x.joblib", **how)
    return (tmp_path / "x.joblib").read_bytes()


OTHERS = [
    (X.tolist(), "a float"),
    ([], "an empty list"),
    ({}, "holds 0 arrays"),
    ({3: X}, "keys are no names"),
    ({"x": X, "paths": ["a", "b"]}, "a str under 'paths' in a list"),
    ([X, [X]], "a list in a list"),
    ([X, X[:, :2]], "2 columns"),
    ([X[0]] * 3, "1-D"),
    (list(np.zeros((5000, 1, 1), np.float32)), "more than 4,096 arrays"),
    (collections.defaultdict(list, a=X), "a defaultdict"),
    ((X, X), "a tuple"),
    (None, "a NoneType"),
    (True, "a bool"),
    (7, "a int"),
    (2.5, "a float"),
    (10**700, "a large integer"),
    ("text", "a str"),
    ("text" * 1000, "a str"),
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
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(("value", "words"), OTHERS, ids=[words for _, words in OTHERS])
def test_honest_pickles_of_other_things(tmp_path: Path, value: object, words: str, protocol: int) -> None:
    if protocol < 2 and words == "a large integer":
        return  # a line of 700 digits
    error = refusal(tmp_path, pickle.dumps(value, protocol=protocol))
    assert words in error.found or (protocol < 2 and error.found == "is no pickle of arrays")
    assert not isinstance(error, HostileFileError)
    assert "pandas" not in words or "to_parquet" in error.hint


def test_other_files_under_the_name(tmp_path: Path) -> None:
    good = pickle.dumps(X, protocol=4)
    out_of_band = pickle.dumps(X, protocol=5, buffer_callback=[].append)
    for data, words in [
        (b"\x80\x06" + good[2:], "a pickle of protocol 6"),
        (zlib.compress(good), "compressed by zlib"),
        (joblib_bytes(tmp_path, compress=3), "compressed by zlib"),
        (b"\x93NUMPY\x01\x00", "a .npy file"),
        (b"", "an empty file"),
        (b"\x80", "no pickle"),
        (b"index,path\n", "no pickle of arrays"),
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
    for protocol in range(6):
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
        "endless work": start + b"N" + b"\x85" * 300_000 + b".",
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
        "an endless integer": start + b"L" + b"9" * 10_000 + b"L\n.", "an integer of letters": start + b"Iab\n.",
        "an item of no list": start + b"NNa.", "a dict of three": start + b"}(NNNu.",
        "a pair of no dict": start + b"]NNs.",
        "a joblib array of nothing": start + b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b.",
        "text that gives other bytes": pickle.dumps(X, 2).replace(b"\xc2\x80", b"~~"),
        "text beyond latin-1": pickle.dumps(X, 2).replace(b"\xc2\x80", b"\xd6\x80"),
        "text that is broken": pickle.dumps(X, 2).replace(b"\xc2\x80", b"\xff\xff"),
        "text too short": pickle.dumps(X, 2).replace(b"K\x02K\x03\x86", b"K\x02K\x21\x86"),
        "a broken escape": pickle.dumps(X, 0).replace(b"\\u0000", b"\\q0000"),
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
    for protocol in range(6):
        whole = pickle.dumps(np.ones((100, 10), np.float32), protocol=protocol)
        for end in {*range(2, 40), len(whole) // 2, len(whole) - 1}:
            error = refusal(tmp_path, whole[:end])
            assert "truncated" in error.found
            assert type(error) is InputError


def test_mutations(tmp_path: Path) -> None:
    """Whatever happens to the bytes, the file is read or refused."""
    rng, path = np.random.default_rng(7), tmp_path / "x.pickle"
    seeds = [pickle.dumps(np.asarray(X, order=order), protocol) for protocol in range(6) for order in "CF"]
    seeds += [pickle.dumps(value, p) for value in ({"a": X, "b": X.astype(">f8")}, [X, X]) for p in (0, 2, 4)]
    seeds += [joblib_bytes(tmp_path), joblib_bytes(tmp_path, {"a": X, "b": [X, X]}), *PYTHON_2]
    seeds += [base64.b64decode(text) for text in NUMPY_1.values()] + list(attacks("true").values())
    outcomes = collections.Counter()
    for _ in range(4000):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 4)):
            mutate(data, rng, seeds)
        path.unlink(missing_ok=True)  # some file systems wait for the disk when a file is cut and written again
        path.write_bytes(data)
        try:
            for source in matrices(path).values():
                outcomes[source.read(0, min(source.shape[0], 100)).ndim] += 1
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

"""Finds where one NumPy array lies inside a pickle without executing the pickle or reading the array.

The pickle machine is played with inert values: a global is a pair of names, a byte string is a place in the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.files import ForwardReader, fingerprint_of, open_regular
from streamclust.readers.raw import RawArray, parse_dtype, raw_array

_MAX_OPCODES = 512  # NumPy writes about 60 for an array
_MAX_STACK = 64
_WRITE_AGAIN = "write each descriptor as one 2-D NumPy array, by numpy.save or as a pickle of protocol 4"

_CORES = ("numpy.core", "numpy._core")
_RECONSTRUCT = frozenset((f"{c}.{m}", "_reconstruct") for c in _CORES for m in ("multiarray", "_multiarray_umath"))
_FROMBUFFER = frozenset((f"{c}.numeric", "_frombuffer") for c in _CORES)
_NDARRAY, _DTYPE = ("numpy", "ndarray"), ("numpy", "dtype")
_ALLOWED = _RECONSTRUCT | _FROMBUFFER | {_NDARRAY, _DTYPE}

_FAMILIAR_NAMES = {
    "DataFrame": "a pandas DataFrame", "Series": "a pandas Series", "NumpyArrayWrapper": "a joblib file",
    "MaskedArray": "a masked array", "_mareconstruct": "a masked array", "matrix": "a numpy.matrix",
    "memmap": "a numpy.memmap", "scalar": "a NumPy scalar", "_rebuild_tensor_v2": "a PyTorch tensor",
    "OrderedDict": "a dict", "defaultdict": "a dict", "csr_matrix": "a sparse matrix", "csc_matrix": "a sparse matrix",
}  # fmt: skip
_FAMILIAR_ROOTS = frozenset({"pandas", "joblib", "numpy", "torch", "scipy", "collections"})
_FAMILIAR_OPCODES = {
    b"]": "a list", b"}": "a dict", b"\x8f": "a set", b"G": "a float", b"\x8b": "a large integer",
    b"\x97": "an array whose bytes lie outside the file", b"\x98": "an array whose bytes lie outside the file",
}  # fmt: skip
_MAGICS = {
    b"\x93NUMPY": "a .npy file", b"PK\x03\x04": "a zip file (.npz or PyTorch)", b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2", b"\xfd7zXZ": "compressed by xz", b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"x\x01": "compressed by zlib", b"x\x9c": "compressed by zlib", b"x^": "compressed by zlib",
    b"x\xda": "compressed by zlib", b"\x89HDF": "an HDF5 file", b"PAR1": "a Parquet file",
}  # fmt: skip


def open_pickle(path: Path) -> RawArray:
    """The 2-D NumPy array of a pickle of protocol 3, 4 or 5, as written by NumPy 1 and 2. Nothing in it is executed.

    Errors: InputError where the file is cut or holds something else, HostileFileError where it asks for anything
    beyond what such an array needs. Source: the opcode list in CPython's pickletools.
    """
    with open_regular(path) as fd:
        seen = fingerprint_of(fd)
        array = _Machine(ForwardReader(path, fd, seen[0])).run()
    place, dtype = array.bytes, parse_dtype(path, array.dtype.order or "", array.dtype.code)
    return raw_array(
        path, array.shape, dtype, offset=place.offset, fortran=array.fortran, payload=place.length, seen=seen
    )


@dataclass(frozen=True)
class _Bytes:
    """A byte string of the pickle: where it lies."""

    offset: int
    length: int


@dataclass(frozen=True)
class _Global:
    """A name that a pickle would import, and that is only compared here."""

    module: str
    name: str


@dataclass
class _Dtype:
    """numpy.dtype(code), then its state."""

    code: str
    order: str | None = None


@dataclass
class _Array:
    """An ndarray that lacks its state (``bytes`` of length 0 at -1) until BUILD fills it."""

    shape: tuple[int, ...] = ()
    dtype: _Dtype = field(default_factory=lambda: _Dtype(""))
    fortran: bool = False
    bytes: _Bytes = _Bytes(-1, 0)


_MARK = object()


class _Machine:
    """Stack and memo of one pickle; each opcode that an array needs is one entry of the table."""

    def __init__(self, stream: ForwardReader) -> None:
        self.stream, self.path = stream, stream.path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        s = stream
        self.table: dict[bytes, Callable[[], object]] = {
            b"\x95": lambda: s.check_room(s.number(8)),  # FRAME
            b"(": lambda: self.push(_MARK),
            b"N": lambda: self.push(None), b"\x88": lambda: self.push(True), b"\x89": lambda: self.push(False),
            b"J": lambda: self.push(s.number(4, signed=True)), b"K": lambda: self.push(s.number(1)),
            b"M": lambda: self.push(s.number(2)), b"\x8a": lambda: self.push(self.long()),
            b"X": lambda: self.push(s.text(s.number(4))), b"\x8c": lambda: self.push(s.text(s.number(1))),
            b"C": lambda: self.push_bytes(s.number(1)), b"B": lambda: self.push_bytes(s.number(4)),
            b"\x8e": lambda: self.push_bytes(s.number(8)), b"\x96": lambda: self.push_bytes(s.number(8)),
            b")": lambda: self.push(()), b"t": lambda: self.push(self.pop_to_mark()),
            b"\x85": lambda: self.push(self.pop(1)), b"\x86": lambda: self.push(self.pop(2)),
            b"\x87": lambda: self.push(self.pop(3)),
            b"q": lambda: self.put(s.number(1)), b"r": lambda: self.put(s.number(4)),
            b"\x94": lambda: self.put(len(self.memo)),
            b"h": lambda: self.get(s.number(1)), b"j": lambda: self.get(s.number(4)),
            b"c": lambda: self.find(s.line(), s.line()), b"\x93": lambda: self.find(*self.pop(2)),
            b"R": self.reduce, b"b": self.build,
        }  # fmt: skip

    def run(self) -> _Array:
        """Play the pickle to its STOP and return the array it left."""
        self.start()
        for _ in range(_MAX_OPCODES):
            opcode = self.stream.take(1)
            if opcode == b".":
                return self.stop()
            if opcode not in self.table:
                self.refuse_opcode(opcode)
            self.table[opcode]()
        raise self.hostile(f"holds more than {_MAX_OPCODES} opcodes")

    def start(self) -> None:
        start = os.pread(self.stream.fd, 8, 0)
        for magic, name in _MAGICS.items():
            if start.startswith(magic):
                raise self.other(name)
        if len(start) < 2:
            raise InputError(self.path, "is an empty file" if not start else "is no pickle", "one 2-D NumPy array")
        if start[0] != 0x80:
            raise self.other("not a pickle of protocol 3-5 (protocol 0 or 1, or no pickle at all)")
        if start[1] not in {3, 4, 5}:
            raise self.other(f"a pickle of protocol {start[1]}")
        self.stream.position = 2

    def stop(self) -> _Array:
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise self.hostile(f"ends with {len(self.stack)} values on its stack")
        [result] = self.stack
        if not isinstance(result, _Array):
            names = {_Dtype: "a dtype", _Global: "a class", _Bytes: "a byte string"}
            raise self.other(names.get(type(result)) or f"a {type(result).__name__}")
        if result.bytes.offset < 0:
            raise self.hostile("holds an array without its bytes")
        left = self.stream.size - self.stream.position
        if left:
            raise InputError(self.path, f"has {left:,} bytes after the array", "one array in the file", _WRITE_AGAIN)
        return result

    def push(self, value: Any) -> None:
        if len(self.stack) >= _MAX_STACK:
            raise self.hostile(f"stacks more than {_MAX_STACK} values")
        self.stack.append(value)

    def push_bytes(self, length: int) -> None:
        self.push(_Bytes(self.stream.skip(length), length))

    def pop(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count or any(value is _MARK for value in self.stack[-count:]):
            raise self.hostile("takes more from its stack than it put there")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def pop_to_mark(self) -> tuple[Any, ...]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                values = tuple(self.stack[i + 1 :])
                del self.stack[i:]
                return values
        raise self.hostile("closes a tuple that it never opened")

    def put(self, key: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise self.hostile("remembers a value that is not there")
        self.memo[key] = self.stack[-1]

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise self.hostile("recalls a value that it never remembered")
        self.push(self.memo[key])

    def long(self) -> int:
        width = self.stream.number(1)
        if width > 8:
            raise self.hostile(f"holds an integer of {width} bytes")
        return self.stream.number(width, signed=True)

    def find(self, module: Any, name: Any) -> None:
        if not (type(module) is str and type(name) is str):
            raise self.hostile("builds a global from something that is not a name")
        if (module, name) not in _ALLOWED:
            if name in _FAMILIAR_NAMES and module.partition(".")[0] in _FAMILIAR_ROOTS:
                raise self.other(_FAMILIAR_NAMES[name])
            raise self.hostile(f"asks for {f'{module[:80]}.{name[:80]}'!r}")
        self.push(_Global(module, name))

    def reduce(self) -> None:
        function, args = self.pop(2)
        if not (isinstance(function, _Global) and type(args) is tuple):
            raise self.hostile("calls something that is not a function")
        called, kinds = (function.module, function.name), [type(a) for a in args]
        if called in _RECONSTRUCT and kinds == [_Global, tuple, _Bytes] and self.is_shell(*args):
            self.push(_Array())
        elif called == _DTYPE and kinds[:1] == [str] and len(args) == 3 and {bool, int} >= set(kinds[1:]):
            parse_dtype(self.path, "<", args[0])  # refuses another kind by its name, before its state gets in the way
            self.push(_Dtype(args[0]))
        elif called in _FROMBUFFER and kinds == [_Bytes, _Dtype, tuple, str] and args[3] in {"C", "F"}:
            payload, dtype, shape, order = args
            self.push(_Array(self.shape_of(shape), dtype, order == "F", payload))
        else:
            raise self.hostile(f"calls {function.module}.{function.name} as NumPy never does")

    @staticmethod
    def is_shell(kind: _Global, shape: tuple[Any, ...], code: _Bytes) -> bool:
        return (kind.module, kind.name) == _NDARRAY and len(shape) == 1 and type(shape[0]) is int and code.length == 1

    def build(self) -> None:
        target, state = self.pop(2)
        kinds = [type(value) for value in state] if type(state) is tuple else []
        if isinstance(target, _Array) and target.bytes.offset < 0 and kinds == [int, tuple, _Dtype, bool, _Bytes]:
            _, shape, target.dtype, target.fortran, target.bytes = state
            target.shape = self.shape_of(shape)
        elif isinstance(target, _Dtype) and target.order is None and kinds[:2] == [int, str]:
            none = type(None)
            if kinds[2:] != [none, none, none, int, int, int]:
                raise self.hostile("gives a plain dtype the fields of another")
            target.order = state[1]
        else:
            raise self.hostile("sets the state of something that is not a new array")
        self.push(target)

    def shape_of(self, shape: tuple[Any, ...]) -> tuple[int, ...]:
        if not all(type(length) is int for length in shape):
            raise self.hostile("gives a shape that is not made of integers")
        return shape

    def refuse_opcode(self, opcode: bytes) -> None:
        if opcode in _FAMILIAR_OPCODES:
            raise self.other(_FAMILIAR_OPCODES[opcode])
        raise self.hostile(f"holds the opcode 0x{opcode.hex()}")

    def other(self, what: str) -> InputError:
        return InputError(self.path, f"is {what}", "one 2-D NumPy array", _WRITE_AGAIN)

    def hostile(self, what: str) -> HostileFileError:
        hint = "do not load this file with pickle unless you trust who made it"
        return HostileFileError(self.path, what, "one 2-D NumPy array and nothing else", hint)

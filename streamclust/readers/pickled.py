"""What a pickle of arrays asks to be made, as inert descriptions: NumPy's own arrays, and joblib's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamclust.readers.machine import MAX_ARRAYS, Bytes, Global, Machine, Text
from streamclust.readers.raw import parse_dtype

_CORES = ("numpy.core", "numpy._core")
_RECONSTRUCT = frozenset((f"{c}.{m}", "_reconstruct") for c in _CORES for m in ("multiarray", "_multiarray_umath"))
_FROMBUFFER = frozenset((f"{c}.numeric", "_frombuffer") for c in _CORES)
_NDARRAY, _DTYPE, _ENCODE = ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")
_ORDERED = ("collections", "OrderedDict")
_NO_BYTES = {("__builtin__", "bytes"), ("builtins", "bytes")}  # what an empty array has in protocols 0 to 2
_REBUILDS = {("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")}  # named before a class; never called
_JOBLIB = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_ALLOWED = _RECONSTRUCT | _FROMBUFFER | {_NDARRAY, _DTYPE, _ENCODE, _ORDERED, _JOBLIB} | _NO_BYTES | _REBUILDS

_PANDAS_HINT = "write df.to_numpy('float32') instead, or df.to_parquet"
_FAMILIAR_NAMES = {
    "DataFrame": "a pandas DataFrame", "Series": "a pandas Series",
    "MaskedArray": "a masked array", "_mareconstruct": "a masked array", "matrix": "a numpy.matrix",
    "memmap": "a numpy.memmap", "scalar": "a NumPy scalar", "_rebuild_tensor_v2": "a PyTorch tensor",
    "defaultdict": "a defaultdict", "csr_matrix": "a sparse matrix", "csc_matrix": "a sparse matrix",
}  # fmt: skip
_FAMILIAR_ROOTS = frozenset({"pandas", "joblib", "numpy", "torch", "scipy", "collections"})


@dataclass
class Dtype:
    """numpy.dtype(code), then its state."""

    code: str
    order: str | None = None


@dataclass
class Array:
    """An ndarray that lacks its state (``bytes`` of length 0 at -1) until BUILD fills it."""

    shape: tuple[int, ...] = ()
    dtype: Dtype = field(default_factory=lambda: Dtype(""))
    fortran: bool = False
    bytes: Bytes = field(default_factory=lambda: Bytes(-1, 0))


@dataclass
class Wrapper:
    """joblib's stand-in for an array whose bytes follow the opcode that completes it."""


class ArrayRules:
    """Makes `Array` values, of which a file may have `MAX_ARRAYS`. See `machine.Rules`."""

    def __init__(self) -> None:
        self.count = 0

    def find(self, machine: Machine, found: Global) -> None:
        """Refuse a global that arrays do not need: what is familiar by its name, the rest as hostile."""
        module, name = found.module, found.name
        if (module, name) in _ALLOWED:
            return
        root = module.partition(".")[0]
        if root == "pandas":
            error = machine.other("is " + _FAMILIAR_NAMES.get(name, "a pandas object"))
            raise type(error)(error.where, error.found, error.expected, _PANDAS_HINT)
        if name in _FAMILIAR_NAMES and root in _FAMILIAR_ROOTS:
            raise machine.other(f"is {_FAMILIAR_NAMES[name]}")
        raise machine.hostile(f"asks for {f'{module[:80]}.{name[:80]}'!r}")

    def call(self, machine: Machine, function: Any, args: Any) -> Any:
        """What REDUCE and NEWOBJ come to."""
        if not (isinstance(function, Global) and type(args) is tuple):
            raise machine.hostile("calls something that is not a function")
        called, kinds = (function.module, function.name), [type(a) for a in args]
        if called in _RECONSTRUCT and kinds[:2] == [Global, tuple] and len(args) == 3 and _is_shell(*args):
            self._one_more(machine)
            return Array()
        if called == _DTYPE and kinds[:1] == [Text] and len(args) == 3 and {bool, int} >= set(kinds[1:]):
            parse_dtype(machine.path, "<", args[0].value)  # refuses another kind by name, before its state is seen
            return Dtype(args[0].value)
        if called in _FROMBUFFER and kinds == [Bytes, Dtype, tuple, Text] and args[3].value in {"C", "F"}:
            self._one_more(machine)
            return Array(_shape(machine, args[2]), args[1], args[3].value == "F", args[0])
        if called == _ENCODE and kinds == [Text, Text] and args[1].value in {"latin1", "latin-1"}:
            return args[0].at
        if called in _NO_BYTES and not args:
            return Bytes(0, 0)
        if called == _ORDERED and not args:
            return {}
        if called == _JOBLIB and not args:
            return Wrapper()
        raise machine.hostile(f"calls {function.module}.{function.name} as NumPy never does")

    def build(self, machine: Machine, target: Any, state: Any) -> Any:
        """What BUILD comes to: the target, completed."""
        kinds = [type(value) for value in state] if type(state) is tuple else []
        if isinstance(target, Array) and target.bytes.offset < 0 and kinds[:4] == [int, tuple, Dtype, bool]:
            _, shape, target.dtype, target.fortran, *rest = state
            target.shape, target.bytes = _shape(machine, shape), _bytes(machine, *rest)
        elif isinstance(target, Dtype) and target.order is None and kinds[:2] == [int, Text]:
            none = type(None)
            if kinds[2:] != [none, none, none, int, int, int]:
                raise machine.hostile("gives a plain dtype the fields of another")
            target.order = state[1].value
        elif isinstance(target, Wrapper) and type(state) is dict:
            self._one_more(machine)
            return _wrapped(machine, state)
        else:
            raise machine.hostile("sets the state of something that is not a new array")
        return target

    def _one_more(self, machine: Machine) -> None:
        self.count += 1
        if self.count > MAX_ARRAYS:
            raise machine.other(f"holds more than {MAX_ARRAYS:,} arrays")


def _is_shell(kind: Global, shape: tuple[Any, ...], code: Any) -> bool:
    at = code.at if isinstance(code, Text) else code
    plain = (kind.module, kind.name) == _NDARRAY and len(shape) == 1 and type(shape[0]) is int
    return plain and isinstance(at, Bytes) and at.length <= len("'b'")


def _bytes(machine: Machine, *values: Any) -> Bytes:
    """Python 2 had one kind of string, for bytes as well."""
    value = values[0] if len(values) == 1 else None
    if type(value) is Text and value.at.coding in {"raw", "quoted"}:
        return value.at
    if type(value) is not Bytes:
        raise machine.hostile("gives an array a state that is none")
    return value


def _shape(machine: Machine, shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or not all(type(length) is int for length in shape):
        raise machine.hostile("gives a shape that is not made of integers")
    return shape


def _wrapped(machine: Machine, state: dict[str, Any]) -> Array:
    """The array of a joblib wrapper; its bytes follow, after padding where the wrapper says so.

    Source: joblib/numpy_pickle.py, NumpyArrayWrapper.
    """
    dtype, order, kind = state.get("dtype"), state.get("order"), state.get("subclass")
    if not (isinstance(dtype, Dtype) and isinstance(order, Text) and isinstance(kind, Global)):
        raise machine.hostile("holds a joblib array without its dtype, order or class")
    if order.value not in {"C", "F"} or (kind.module, kind.name) != _NDARRAY:
        raise machine.hostile("holds a joblib array that is no plain one")
    shape, stream = _shape(machine, state.get("shape")), machine.stream
    if state.get("numpy_array_alignment_bytes") is not None:
        stream.skip(stream.number(1))
    length = parse_dtype(machine.path, dtype.order or "", dtype.code).itemsize
    for size in shape:
        length *= max(0, size)
    return Array(shape, dtype, order.value == "F", Bytes(stream.skip(length), length))

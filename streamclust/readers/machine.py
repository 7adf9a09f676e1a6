"""Plays a pickle with inert values: a global is a pair of names, a byte string is a place in the file. Nothing runs.

Which calls are understood, and what becomes of them, is said by `Rules`; here are the stack, the memo and the opcodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.files import ForwardReader

MAX_ARRAYS = 4096
_MAX_OPCODES = 64 * MAX_ARRAYS  # NumPy writes about 60 for the first array of a file, 30 for another
_MAX_STACK = 2 * 1000 + 64  # a pickler puts a thousand items, of a dict a thousand pairs, at once
_MAX_NAME = 256
EXPECTED = "NumPy arrays of two dimensions: one, a dict of them by name, or a list of parts"
WRITE_AGAIN = "write each descriptor as one 2-D NumPy array, by numpy.save or as a pickle of protocol 4"

_FAMILIAR_OPCODES = {
    b"\x8f": "a set", b"G": "a float", b"F": "a float", b"\x8b": "a large integer",
    b"\x97": "an array whose bytes lie outside the file", b"\x98": "an array whose bytes lie outside the file",
}  # fmt: skip


@dataclass(frozen=True)
class Bytes:
    """A byte string of the pickle: where it lies, and how it is spelled there.

    coding : ``raw``, or as text, a character per byte: ``utf-8``, ``escaped`` (protocol 0), ``quoted`` (Python 2).
    """

    offset: int
    length: int
    coding: str = "raw"


@dataclass(frozen=True)
class Text:
    """A text of the pickle; ``value`` is empty where it is too long for a name."""

    at: Bytes
    value: str


@dataclass(frozen=True)
class Global:
    """A name that a pickle would import, and that is only compared here."""

    module: str
    name: str


_MARK = object()


class Rules(Protocol):
    """What a pickle may ask for, and what that comes to. Each refuses anything else."""

    def find(self, machine: Machine, found: Global) -> None:
        """A global was named."""

    def call(self, machine: Machine, function: Any, args: Any) -> Any:
        """What a call (REDUCE, NEWOBJ) returns."""

    def build(self, machine: Machine, target: Any, state: Any) -> Any:
        """What a value becomes by its state (BUILD)."""


class Machine:
    """Stack and memo of one pickle; each opcode that arrays need is one entry of the table.

    Source: the opcode list in CPython's pickletools.
    """

    def __init__(self, stream: ForwardReader, rules: Rules) -> None:
        self.stream, self.path = stream, stream.path
        self.rules = rules
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.table: dict[bytes, Callable[[], object]] = {
            **self._values(), **self._containers(), **self._memory(),
            b"c": lambda: self.find(self.line(), self.line()), b"\x93": lambda: self.find(*self.pop(2)),
            b"R": lambda: self.push(rules.call(self, *self.pop(2))),
            b"\x81": lambda: self.push(rules.call(self, *self.pop(2))),
            b"b": lambda: self.push(rules.build(self, *self.pop(2))),
        }  # fmt: skip

    def _values(self) -> dict[bytes, Callable[[], object]]:
        s, push = self.stream, self.push
        return {
            b"\x95": lambda: s.check_room(s.number(8)),  # FRAME
            b"N": lambda: push(None), b"\x88": lambda: push(True), b"\x89": lambda: push(False),
            b"J": lambda: push(s.number(4, signed=True)), b"K": lambda: push(s.number(1)),
            b"M": lambda: push(s.number(2)), b"\x8a": lambda: push(self.long()),
            b"I": lambda: push(self.decimal({"00": False, "01": True})), b"L": lambda: push(self.decimal()),
            b"X": lambda: self.push_text(s.number(4), "utf-8"), b"\x8c": lambda: self.push_text(s.number(1), "utf-8"),
            b"\x8d": lambda: self.push_text(s.number(8), "utf-8"),
            b"T": lambda: self.push_text(s.number(4), "raw"), b"U": lambda: self.push_text(s.number(1), "raw"),
            b"V": lambda: self.push_text(s.line_length(), "escaped"),
            b"S": lambda: self.push_text(s.line_length(), "quoted"),
            b"C": lambda: self.push_bytes(s.number(1)), b"B": lambda: self.push_bytes(s.number(4)),
            b"\x8e": lambda: self.push_bytes(s.number(8)), b"\x96": lambda: self.push_bytes(s.number(8)),
        }  # fmt: skip

    def _containers(self) -> dict[bytes, Callable[[], object]]:
        push, pop = self.push, self.pop
        return {
            b"(": lambda: push(_MARK),
            b")": lambda: push(()), b"t": lambda: push(self.pop_to_mark()),
            b"\x85": lambda: push(pop(1)), b"\x86": lambda: push(pop(2)), b"\x87": lambda: push(pop(3)),
            b"]": lambda: push([]), b"l": lambda: push(list(self.pop_to_mark())),
            b"}": lambda: push({}), b"d": self.new_dict,
            b"a": lambda: self.extend(pop(1)), b"e": lambda: self.extend(self.pop_to_mark()),
            b"s": lambda: self.set_items(pop(2)), b"u": lambda: self.set_items(self.pop_to_mark()),
        }  # fmt: skip

    def _memory(self) -> dict[bytes, Callable[[], object]]:
        s = self.stream
        return {
            b"q": lambda: self.put(s.number(1)), b"r": lambda: self.put(s.number(4)),
            b"p": lambda: self.put(self.decimal()), b"\x94": lambda: self.put(len(self.memo)),
            b"h": lambda: self.get(s.number(1)), b"j": lambda: self.get(s.number(4)),
            b"g": lambda: self.get(self.decimal()),
        }  # fmt: skip

    def run(self) -> Any:
        """Play the pickle to its STOP and return the one value that it left."""
        for _ in range(_MAX_OPCODES):
            opcode = self.stream.take(1)
            if opcode == b".":
                break
            if opcode not in self.table:
                if opcode in _FAMILIAR_OPCODES:
                    raise self.other(f"holds {_FAMILIAR_OPCODES[opcode]}")
                raise self.hostile(f"holds the opcode 0x{opcode.hex()}")
            self.table[opcode]()
        else:
            raise self.hostile(f"holds more than {_MAX_OPCODES:,} opcodes")
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise self.hostile(f"ends with {len(self.stack)} values on its stack")
        return self.stack[0]

    def push(self, value: Any) -> None:
        if len(self.stack) >= _MAX_STACK:
            raise self.hostile(f"stacks more than {_MAX_STACK:,} values")
        self.stack.append(value)

    def push_bytes(self, length: int) -> None:
        self.push(Bytes(self.stream.skip(length), length))

    def push_text(self, length: int, coding: str) -> None:
        offset, value = self.stream.position, ""
        if length <= _MAX_NAME:
            self.stream.check_room(length)
            value = self.name(self.stream.take(length), coding)
        else:
            self.stream.skip(length)
        if coding in {"escaped", "quoted"}:
            self.stream.take(1)  # the line's end
        self.push(Text(Bytes(offset, length, coding), value))

    def name(self, data: bytes, coding: str) -> str:
        """A short text. One that is none, as the bytes of a small array of Python 2 may be, is never a name."""
        try:
            if coding == "quoted":
                return "" if b"\\" in data else data[1:-1].decode("ascii")
            return data.decode({"escaped": "raw-unicode-escape", "raw": "ascii"}.get(coding, coding))
        except ValueError as error:
            if coding in {"utf-8", "escaped"}:
                raise self.hostile(f"holds a text that is not {coding.upper()}") from error
            return ""

    def line(self) -> Text:
        at = Bytes(self.stream.position, 0)
        return Text(at, self.stream.line())

    def decimal(self, special: dict[str, bool] | None = None) -> int:
        """An integer, or a bool in disguise, of protocol 0."""
        text = self.stream.line()
        if special and text in special:
            return special[text]
        digits = text.removesuffix("L")
        if not digits.removeprefix("-").isdecimal() or not digits.isascii() or len(digits) > 20:
            raise self.hostile(f"holds the integer {text[:40]!r}")
        return int(digits)

    def long(self) -> int:
        width = self.stream.number(1)
        if width > 8:
            raise self.hostile(f"holds an integer of {width} bytes")
        return self.stream.number(width, signed=True)

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

    def extend(self, values: tuple[Any, ...]) -> None:
        if not self.stack or type(self.stack[-1]) is not list:
            raise self.hostile("appends to something that is no list")
        self.stack[-1].extend(values)

    def set_items(self, values: tuple[Any, ...]) -> None:
        if not self.stack or type(self.stack[-1]) is not dict or len(values) % 2:
            raise self.hostile("sets items of something that is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not Text or not key.value:
                raise self.other("holds a dict whose keys are no names")
            self.stack[-1][key.value] = value

    def new_dict(self) -> None:
        items = self.pop_to_mark()
        self.push({})
        self.set_items(items)

    def put(self, key: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise self.hostile("remembers a value that is not there")
        self.memo[key] = self.stack[-1]

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise self.hostile("recalls a value that it never remembered")
        self.push(self.memo[key])

    def find(self, module: Any, name: Any) -> None:
        if not (type(module) is Text and type(name) is Text):
            raise self.hostile("builds a global from something that is not a name")
        self.rules.find(self, found := Global(module.value, name.value))
        self.push(found)

    def other(self, what: str) -> InputError:
        """The error for an honest file of something else."""
        return InputError(self.path, what, EXPECTED, WRITE_AGAIN)

    def hostile(self, what: str) -> HostileFileError:
        """The error for what no honest writer does."""
        hint = "do not load this file with pickle unless you trust who made it"
        return HostileFileError(self.path, what, EXPECTED, hint)

"""The whole error tree. Every message says what was found, where, what was expected and what to do."""

from __future__ import annotations


class StreamclustError(Exception):
    """Base of everything streamclust raises on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 1


class Stopped(StreamclustError):  # noqa: N818 - nothing is wrong
    """Somebody ended the work by Ctrl-C or SIGTERM; the exit code is that of the signal."""

    def __init__(self, found: str, exit_code: int) -> None:
        self.found, self.exit_code = found, exit_code
        super().__init__(f"{found}; run the same command again to carry on")

    def __reduce__(self) -> tuple[type[Stopped], tuple[str, int]]:
        return type(self), (self.found, self.exit_code)


class SystemFailure(StreamclustError):  # noqa: N818 - it failed, and not streamclust
    """The system could not do what it was asked for, as on a full disk."""

    def __init__(self, found: str, exit_code: int) -> None:
        self.found, self.exit_code = found, exit_code
        super().__init__(found)

    def __reduce__(self) -> tuple[type[SystemFailure], tuple[str, int]]:
        return type(self), (self.found, self.exit_code)


class InputError(StreamclustError):
    """A file, its contents, or an argument cannot be used.

    Parameters
    ----------
    where : the file, row, setting or argument at fault.
    found : what was there.
    expected : what would have been right.
    hint : what to do about it.
    """

    exit_code = 2

    def __init__(self, where: object, found: str, expected: str = "", hint: str = "") -> None:
        self.where, self.found, self.expected, self.hint = str(where), found, expected, hint
        text = f"{where}: {found}"
        if expected:
            text += f"; expected {expected}"
        if hint:
            text += f"; {hint}"
        super().__init__("".join(c if c.isprintable() else " " for c in text))  # what a terminal would obey, too

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str, str]]:
        return type(self), (self.where, self.found, self.expected, self.hint)


class HostileFileError(InputError):
    """A file asks for something that only an attack or a broken writer would ask for. Nothing of it was executed."""


class BudgetError(InputError):
    """The work cannot be done within the memory or disk that was granted."""


class ConflictError(InputError):
    """Another writer holds or has changed what this one needs; trying again is safe."""


class DamageError(InputError):
    """Stored data is missing or does not match its checksum."""

    exit_code = 3

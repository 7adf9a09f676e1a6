"""Loops that NumPy has no words for, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The same function over NumPy arrays, compiled when it is first called and then kept beside its source.

    It runs without the interpreter's lock, divides by zero to infinity, and takes no number for NaN. Where nothing can
    be kept, as in a folder that is read only or on a full disk, every process compiles it anew.
    """

    @cache
    def fast() -> F:
        import numba

        compiler = partial(numba.njit, nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})
        try:
            return cast("F", compiler(function, cache=True))
        except RuntimeError:  # numba finds no folder that it may write to
            return cast("F", compiler(function))

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return fast()(*arguments)
        except OSError:  # it is compiled, could not be kept, and has not run yet
            return fast()(*arguments)

    return cast("F", call)

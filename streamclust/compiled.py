"""Loops that NumPy has no words for, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial, wraps
from types import FunctionType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_CALLED = 8  # loops that one may call, each of which may fail to be kept


def compiled(function: F) -> F:
    """The same function over NumPy arrays, compiled when it is first called and then kept beside its source.

    It runs without the interpreter's lock, divides by zero to infinity, and takes no number for NaN. It may call others
    of its own file. Where nothing can be kept, as in a folder that is read only or on a full disk, every process
    compiles it anew.
    """

    @cache
    def fast() -> F:
        import numba

        compiler = partial(numba.njit, nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})
        try:
            return cast("F", compiler(_calling_compiled(function), cache=True))
        except RuntimeError:  # numba finds no folder that it may write to
            return cast("F", compiler(_calling_compiled(function)))

    @wraps(function)
    def call(*arguments: Any) -> Any:
        for _ in range(_CALLED):
            with suppress(OSError):  # it or one that it calls is compiled, could not be kept, and has not run yet
                return fast()(*arguments)
        return fast()(*arguments)

    call.fast = fast  # type: ignore[attr-defined]
    return cast("F", call)


def _calling_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, in which others of its file that are compiled go by what numba made of them.

    Only of its file: what is kept of a loop is thrown away when that file changes, and no other.
    """
    named: list[Any] = [function.__globals__.get(name) for name in function.__code__.co_names]
    called = [other for other in named if hasattr(other, "fast") and other.__module__ == function.__module__]
    if not called:
        return function
    names = function.__globals__ | {other.__name__: other.fast() for other in called}
    again = FunctionType(function.__code__, names, function.__name__)
    again.__module__, again.__qualname__ = function.__module__, function.__qualname__
    return again

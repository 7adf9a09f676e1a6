"""Numbers as a report prints them: counts, shares, times, sizes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamclust.render.parts import Cell, Table

DASH = "–"


def count(value: float | None) -> str:
    """12345 as 12,345."""
    return DASH if value is None or math.isnan(value) else f"{value:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share (0..1) as 12.3%; a share that is not quite none or all as < 0.1% or > 99.9%."""
    if share is None or math.isnan(share):
        return DASH
    least = 10.0**-digits
    if 0 < 100 * share < least:
        return f"< {least:g}%"
    if share < 1 and 100 * share > 100 - least / 2:
        return f"> {100 - least:g}%"
    return f"{100 * share:.{digits}f}%"


def number(value: float | None) -> str:
    """Four significant digits without exponents for ordinary sizes."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:.4g}"


def seconds(value: float | None) -> str:
    """0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if value is None or math.isnan(value):
        return DASH
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(value: float | None) -> str:
    """Bytes in decimal units: 999 B, 1.2 GB."""
    if value is None:
        return DASH
    left = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if left < 999.5:
            return f"{left:.0f} {unit}" if left >= 99.5 or unit == "B" else f"{left:.1f} {unit}"
        left /= 1000
    return f"{left:.1f} TB"


FORMATS: dict[str, Callable[[float | None], str]] = {
    "count": count,
    "percent": percent,
    "number": number,
    "seconds": seconds,
    "bytes": size,
}


def cell(value: Cell, table: Table, column: int) -> str:
    """One value of a table in its column's format."""
    if value is None:
        return DASH
    if isinstance(value, str):
        return value
    kind = table.formats[column] if table.formats else ""
    if kind in FORMATS:
        return FORMATS[kind](value)
    if kind == "text":
        return str(value)
    return count(value) if isinstance(value, int) else number(value)


def is_numeric(table: Table, column: int) -> bool:
    """Whether a column is set flush right."""
    return any(isinstance(row[column], int | float) for row in table.rows)

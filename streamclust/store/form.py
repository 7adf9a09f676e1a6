"""Whether a document that carries the right digest also has the form of a manifest; what fields mean is said there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamclust.readers.files import path_fault

_TEXTS = ("parent", "operation", "time")


def fault(document: Mapping[str, Any]) -> str:
    """What of a manifest is not as this package writes it (``field 'add'``, ...), or nothing."""
    for name in _TEXTS:
        if type(document[name]) is not str:
            return f"field {name!r}"
    if type(document["remove"]) is not list or not all(type(name) is str for name in document["remove"]):
        return "field 'remove'"
    for name in ("add", "checkpoint"):
        entries = document[name]
        if entries is None and name == "checkpoint":
            continue
        if type(entries) is not dict:
            return f"field {name!r}"
        for key, tree in entries.items():
            if not _is_entry(tree):
                return f"entry {key[:80]!r}"
    return ""


def _is_entry(tree: Any) -> bool:
    """An entry as it is written, whose path stays below the store's data."""
    return (
        type(tree) is dict
        and type(tree["path"]) is str
        and not path_fault(tree["path"])
        and type(tree["kind"]) is str
        and type(tree["attributes"]) is dict
        and type(tree["added"]) is int
        and type(tree["arrays"]) is dict
        and all(map(_is_array, tree["arrays"].values()))
        and _are_firsts(tree.get("first"), tree["arrays"])
    )


def _are_firsts(rows: Any, arrays: Mapping[str, Any]) -> bool:
    """Where each array of an object in a pack begins."""
    if rows is None:
        return True
    return type(rows) is dict and rows.keys() == arrays.keys() and _are_sizes(list(rows.values()))


def _is_array(tree: Any) -> bool:
    return (
        type(tree) is dict
        and _are_sizes(tree["shape"])
        and _are_sizes(tree["chunks"])
        and type(tree["dtype"]) is str
        and type(tree["digest"]) is str
    )


def _are_sizes(values: Any) -> bool:
    return type(values) is list and all(type(value) is int and value >= 0 for value in values)

"""A store that is new: its folders, its rooms and manifest 0."""

from __future__ import annotations

from pathlib import Path

from streamclust.errors import DamageError, InputError
from streamclust.store import arrays, manifest
from streamclust.store.files import sync, sync_tree

ROOMS = ("batches", "projections", "reduced", "models", "labels", "grids", "names")


def make_empty(path: Path) -> None:
    """Make an empty store, unless there is one.

    Raises
    ------
    InputError : the folder holds other things, or may not be written. DamageError : it lost all its manifests.
    """
    try:
        if not any((path / "log").glob("*.json")):
            _refuse_others(path)
            _make_folders(path)
            manifest.create_log(path / "log")
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise InputError(path, f"cannot make a store there ({error.strerror})", "a folder you may write") from None


def _refuse_others(path: Path) -> None:
    """Nothing lies there but what a killed try leaves."""
    present = {p.name for p in path.iterdir()} if path.exists() else set()
    if present and ("drafts" not in present or present - {"data", "log", "drafts", "report"}):
        raise InputError(path, "a folder with other things in it", "a store or a new name")
    if any((path / "data").glob("*/*/zarr.json")):
        raise DamageError(path / "log", "no manifest is left, though data holds objects", hint="restore it")


def _make_folders(path: Path) -> None:
    """Every folder, on disk with those above that were made for it."""
    known = next(parent for parent in path.absolute().parents if parent.exists())
    for partial in path.rglob("*.partial"):  # of a killed try
        partial.unlink(missing_ok=True)
    for folder in ("drafts", "log"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for room in ("", *ROOMS):
        arrays.create_group(path / "data" / room)
    sync_tree(path)
    for parent in path.absolute().parents:
        sync(parent)
        if parent == known:
            break

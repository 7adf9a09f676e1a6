"""Where the log begins once older snapshots were pruned: the first kept state, and what they had said of objects."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamclust.errors import DamageError
from streamclust.store.files import naming, read_file, sync

NAME = "first.json"
_BACKUP = "restore it from a backup"


@dataclass(frozen=True)
class Floor:
    """The first kept snapshot.

    Attributes
    ----------
    number, manifest : of its manifest, and that one's digest. state : its entries by name, as manifests write them.
    objects : [name, entry as first published] of every kept object that came up to then. taken_out : paths of those
    among them that a repair took out. leaving : paths that no kept snapshot names,
    and that may lie there until a prune ends.
    """

    number: int
    manifest: str
    state: Mapping[str, Any]
    objects: tuple[tuple[str, Mapping[str, Any]], ...]
    taken_out: tuple[str, ...]
    leaving: tuple[str, ...]


def read(log: Path) -> Floor | None:
    """What the log begins with; nothing where it begins with manifest 0.

    Raises
    ------
    DamageError : it does not match its own digest.
    """
    try:
        document = json.loads(read_file(log / NAME))
        claimed = document.pop("digest")
        if claimed != _digest(document):
            raise DamageError(log / NAME, "it does not match its digest", hint=_BACKUP)
        lists = {name: tuple(document[name]) for name in ("objects", "taken_out", "leaving")}
        return Floor(**{**document, **lists})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(log / NAME, f"it cannot be read ({error})", hint=_BACKUP) from None


def write(log: Path, floor: Floor) -> None:
    """Put it in the place of the one before, at once."""
    document = json.loads(json.dumps(asdict(floor)))
    temporary = log / f".{NAME}.tmp"
    with naming(temporary), temporary.open("w") as file:
        file.write(json.dumps(document | {"digest": _digest(document)}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, log / NAME)  # noqa: PTH105 - watched by name where crashes are tried
    sync(log)


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

"""What a store was at every snapshot, and back to one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamclust.blocks import Serial
from streamclust.errors import ConflictError, DamageError, InputError
from streamclust.store import manifest
from streamclust.store.entries import Entry, Snapshot, entry_from, key_of
from streamclust.store.store import FORMER, Store, unfinished
from streamclust.store.verify import read_log, verify

_COUNTED = ("batch", "withdrawal", "forgetting")  # what the number of rows depends on
_FORGETTING = ("forgetting", "forgotten")


@dataclass(frozen=True)
class Change:
    """One snapshot: its operation, its time, the rows in force then, and the names that were added and removed."""

    number: int
    time: str
    operation: str
    rows: int
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        said = [f"{sign} {_words(names)}" for sign, names in (("+", self.added), ("-", self.removed)) if names]
        return f"{self.number:>6}  {self.time}  {self.rows:>13,} rows  {self.operation}  {' '.join(said)}".rstrip()


def _words(names: Sequence[str]) -> str:
    """How many of each room: ``1 batches, 4 labels``."""
    return ", ".join(f"{n} {room}" for room, n in sorted(Counter(name.split("/", 1)[0] for name in names).items()))


def history(store: Store) -> list[Change]:
    """Every kept snapshot up to the store's, oldest first.

    Raises
    ------
    DamageError : a manifest is missing or altered.
    """
    log = store.path / "log"
    first = manifest.first_number(log)
    before = manifest.load(log, first).entries if first else {}
    counted, found = {n: e for n, e in before.items() if e.kind in _COUNTED}, list[Change]()
    rows, kinds = Store(store.path, Snapshot(first, "", counted)).n, {n: e.kind for n, e in before.items()}
    for number in range(first, store.snapshot.number + 1):
        document = manifest.read(log, number)
        added = {n: entry_from(tree) for n, tree in document["add"].items()}
        changed = [n for n in (*document["remove"], *added) if n in counted or added.get(n, _NOTHING).kind in _COUNTED]
        if changed:
            counted = {n: e for n, e in counted.items() if n not in changed}
            counted |= {n: added[n] for n in changed if n in added and added[n].kind in _COUNTED}
            rows = Store(store.path, Snapshot(number, "", counted)).n
        left = {name for name, entry in added.items() if entry.kind == FORMER}
        kinds = {n: kind for n, kind in kinds.items() if n not in document["remove"]}
        new = {n for n, e in added.items() if kinds.get(n) != e.kind or number == first}  # else it moved
        kinds |= {n: e.kind for n, e in added.items()}
        of = tuple(sorted(new - left)), tuple(sorted(left.union(document["remove"])))
        found.append(Change(number, document["time"], document["operation"], rows, *of))
    return found


_NOTHING = Entry("", "")


def rollback(store: Store, number: int) -> Change:
    """Publish the state of an older snapshot as the newest one; returns what that changed.

    Every entry is as it was then, down to when it was added. Batches that came since keep their row numbers, and what
    is forgotten later is sought in them as well; to everybody else they are gone, until a rollback to a snapshot that
    has them.

    Raises
    ------
    InputError : there is no such snapshot, it is the state already, or rows were forgotten since. ConflictError :
    somebody else published meanwhile, or rows are being forgotten. DamageError : what it names is damaged or gone.
    """
    base = store.snapshot
    if pending := unfinished(base):
        hint = "finish it first: streamclust forget STORE --resume"
        raise ConflictError(store.path, f"{pending[0]} is not finished", hint=hint)
    target = manifest.load(store.path / "log", number).entries
    forgot = [e.added for name, e in base.entries.items() if e.kind in _FORGETTING and name not in target]
    if forgot:
        expected = f"snapshot {max(forgot)} or a later one"
        raise InputError(f"snapshot {number}", "rows were forgotten since, and do not come back", expected)
    came = {n: replace(e, kind=FORMER) for n, e in base.entries.items() if e.kind in {"batch", FORMER}}
    state = {**{n: e for n, e in came.items() if n not in target}, **target}
    add = {name: entry for name, entry in state.items() if base.entries.get(name) != entry}
    remove = tuple(name for name in base.entries if name not in state)
    if not add and not remove:
        raise InputError(f"snapshot {number}", "is what the store is now", "an earlier state")
    known = {key_of(name, e) for name, e in base.entries.items()}
    _refuse_damaged(store, number, {key_of(name, e) for name, e in add.items()} - known)
    manifest.publish(store.path / "log", base, f"roll back to {number}", add, remove, state)
    store.refresh()
    return history(store)[-1]


def _refuse_damaged(store: Store, number: int, keys: set[str]) -> None:
    """What comes back is all there, and was not taken out because it is damaged."""
    log = read_log(store.path / "log")
    if bad := sorted(keys & log.taken_out):
        raise DamageError(f"snapshot {number}", f"{log.names[bad[0]]} is damaged", "another snapshot")
    looked = verify(store.path, Serial(), quick=True, only=keys)
    if damage := [one for one in looked.damage if one.path in keys]:
        raise DamageError(f"snapshot {number}", f"{damage[0].file}: {damage[0].found}", hint="restore it from a backup")

"""Whether a store is sound, what it was before, and back to that."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from streamclust.cli.options import (
    AsJson,
    Config,
    Quiet,
    Scheduler,
    StoreArg,
    Workers,
    answer,
    mb,
    session,
    settings,
)

if TYPE_CHECKING:
    from streamclust.store.verify import Verified

app = typer.Typer()


@app.command()
def verify(
    store: StoreArg,
    quick: Annotated[bool, typer.Option("--quick", help="Metadata, and chunks by their number and size only.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Sweep orphans, make again what is derived; what came in stays as it is.")
    ] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read everything in every snapshot and name what is damaged, with its rows; exit 3 if anything is."""
    flags = {"workers": workers, "scheduler": scheduler}
    with session(as_json, quiet) as show:
        from streamclust.errors import InputError
        from streamclust.repair import repair as mend
        from streamclust.upkeep import verify as look_through

        if quick and repair:
            raise InputError("verify", "--quick and --repair exclude each other", "one of them")
        known, done = settings(config, flags), list[str]()
        if repair:
            found, done = mend(store, known, show)
        else:
            found = look_through(store, known, show, quick=quick)
        answer(as_json, asdict(found) | {"repaired": done}, "\n".join([*done, _text(found)]))
    if found.damage:
        raise SystemExit(3)


def _text(found: Verified) -> str:
    lines = [f"DAMAGED {one}" for one in found.damage]
    lines += [f"damaged in snapshots before a repair: {one}" for one in found.taken_out]
    lines += [f"orphan of a writer that died: {path}" for path in found.orphans]
    if found.writers:
        lines.append(f"{found.writers} objects are being written now")
    seen = f"{found.snapshots:,} snapshots, {found.objects:,} objects, {found.chunks:,} chunks"
    how = "looked at, not read" if found.quick else "read"
    wrong = f"{len(found.damage):,} DAMAGED" if found.damage else "no damage"
    return "\n".join([*lines, f"{seen}, {mb(found.bytes)} {how}: {wrong}, {len(found.orphans):,} orphans"])


@app.command()
def history(store: StoreArg, as_json: AsJson = False) -> None:
    """Every snapshot, newest last: its number, time, rows then, operation, and what it added and removed."""
    with session(as_json, quiet=False):
        from streamclust.store.history import history as every
        from streamclust.store.store import open_store

        found = every(open_store(store))
        answer(as_json, {"snapshots": [asdict(one) for one in found]}, "\n".join(map(str, found)))


@app.command()
def rollback(
    store: StoreArg,
    number: Annotated[int, typer.Argument(metavar="N", help="A snapshot that history lists.")],
    as_json: AsJson = False,
) -> None:
    """Publish the state of snapshot N as the newest one; nothing is lost, and rolling back again undoes it."""
    with session(as_json, quiet=False):
        from streamclust.store.history import rollback as roll_back
        from streamclust.store.store import open_store

        done = roll_back(open_store(store), number)
        text = f"the state of snapshot {number} is in force again as snapshot {done.number}, {done.rows:,} rows"
        answer(as_json, asdict(done), f"{text}\ndraw its report anew: streamclust report STORE")


@app.command()
def compact(
    store: StoreArg,
    workers: Workers = None,
    scheduler: Scheduler = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Merge what is stored of many small batches into few large files, as a new snapshot; nothing else changes."""
    flags = {"workers": workers, "scheduler": scheduler}
    with session(as_json, quiet) as show:
        from streamclust.upkeep import compact as merge

        done = merge(store, settings(config, flags), show)
        text = f"{done.objects:,} objects merged into {done.packs:,} packs, {mb(done.bytes)}, snapshot {done.snapshot}"
        text += "\nolder snapshots keep theirs until: streamclust prune STORE --keep N"
        answer(as_json, asdict(done), text if done.packs else "nothing to merge")


@app.command()
def prune(
    store: StoreArg,
    keep: Annotated[int, typer.Option(help="How many snapshots stay, 1 or more.", metavar="N", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Remove all but the newest N snapshots, and every object that none of those names; cannot be undone."""
    with session(as_json, quiet=False):
        from streamclust.store.pruning import prune as remove_old
        from streamclust.store.store import open_store

        done = remove_old(open_store(store), keep)
        gone = f"{done.snapshots:,} snapshots and {done.objects:,} objects removed, {mb(done.bytes)} freed"
        answer(as_json, asdict(done), f"{gone}; history begins with snapshot {done.first}")

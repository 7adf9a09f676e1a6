"""What keeps a store in order over the years: withdraw and restore a batch, forget rows, move its pictures."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from streamclust.cli.options import AsJson, StoreArg, answer, session

app = typer.Typer()

BatchArg = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's name, as info lists it.")]


@app.command()
def withdraw(
    store: StoreArg,
    batch: BatchArg,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")],
    as_json: AsJson = False,
) -> None:
    """Leave a batch out from now on; nothing is removed, and restore takes it in again."""
    with session(as_json, quiet=False):
        from streamclust.store.retention import withdraw as leave_out
        from streamclust.store.store import open_store

        models = leave_out(open_store(store), batch, reason)
        saw = f"; these models saw it, fit again to be rid of it: {', '.join(models)}" if models else ""
        answer(as_json, {"batch": batch, "models": models}, f"{batch} is left out{saw}")


@app.command()
def restore(store: StoreArg, batch: BatchArg, as_json: AsJson = False) -> None:
    """Take a withdrawn batch in again."""
    with session(as_json, quiet=False):
        from streamclust.store.retention import restore as take_in
        from streamclust.store.store import open_store

        take_in(open_store(store), batch)
        answer(as_json, {"batch": batch}, f"{batch} is back")


@app.command()
def forget(
    store: StoreArg,
    paths: Annotated[Path | None, typer.Option(help="A CSV of picture paths.", metavar="FILE")] = None,
    before: Annotated[
        datetime | None, typer.Option(help="Rows of days before this one.", formats=["%Y-%m-%d"], metavar="DATE")
    ] = None,
    batch: Annotated[list[str] | None, typer.Option(help="Only in this batch; may be repeated.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish a forgetting that was interrupted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove rows and all that was derived from them from every snapshot, and prove it; cannot be undone."""
    with session(as_json, quiet=False):
        from streamclust.errors import DamageError
        from streamclust.store import forgetting
        from streamclust.store.store import open_store

        opened = open_store(store)
        day = before.date() if before else None
        done = forgetting.resume(opened) if resume else forgetting.forget(opened, paths, day, batch)
        if done is None:
            answer(as_json, {"rows": 0}, "no forgetting was interrupted")
            return
        rows = sum(done.rows.values())
        text = f"{rows:,} rows forgotten in {done.snapshots:,} snapshots; {done.files:,} files were looked through"
        if done.missing:
            text += f"; {done.missing:,} of {done.asked:,} paths were in no batch"
        if done.models:
            text += f"\nmodels that saw them, fit again to be rid of what they learned: {', '.join(done.models)}"
        answer(as_json, asdict(done), text)
        if done.left:
            raise DamageError(done.left[0], "still holds what was to be forgotten", hint="run forget again")


@app.command()
def relocate(
    store: StoreArg,
    batch: BatchArg,
    place: Annotated[Path, typer.Argument(metavar="PLACE", help="The zip or folder of pictures as it lies now.")],
    as_json: AsJson = False,
) -> None:
    """Say where a batch's pictures lie now."""
    with session(as_json, quiet=False):
        from streamclust.store.places import relocate as move
        from streamclust.store.store import open_store

        found = move(open_store(store), batch, place)
        answer(as_json, {"batch": batch, "pictures": str(found)}, f"the pictures of {batch} are read from {found}")

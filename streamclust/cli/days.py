"""The day's work and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamclust.cli.options import (
    AsJson,
    At,
    Config,
    Memory,
    Quiet,
    Scheduler,
    StoreArg,
    Workers,
    answer,
    session,
    settings,
)

app = typer.Typer()


@app.command()
def daily(
    store: StoreArg,
    drop: Annotated[Path, typer.Argument(metavar="DROP", help="A folder with a case folder for each day.")],
    on_alarm: Annotated[
        str | None, typer.Option(help="Run for each alarm, which it gets as JSON on its input.", metavar="COMMAND")
    ] = None,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take in every new case folder under DROP, oldest first, by the frozen models; exit 4 when done with alarms."""
    flags = {"memory": memory, "workers": workers, "scheduler": scheduler}
    with session(as_json, quiet) as show:
        from streamclust.daily import daily as take_in

        result = take_in(store, drop, settings(config, flags), listener=show, on_alarm=on_alarm)
        answer(as_json, result.summary(), result.text())
    if result.alarms or result.aside:
        raise SystemExit(4)


@app.command()
def alarms(
    store: StoreArg,
    ack: Annotated[str | None, typer.Option(help="Acknowledge this alarm: its cause does not cry again.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why it needs no more attention.")] = None,
    who: Annotated[str | None, typer.Option(help="Who says so; by default your login.")] = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Every alarm so far, newest first, or acknowledge one."""
    with session(as_json, quiet=False):
        from dataclasses import asdict
        from getpass import getuser

        from streamclust.daily import acknowledge
        from streamclust.errors import InputError
        from streamclust.stages.watch import alarms as every
        from streamclust.store.store import open_store

        if (ack is None) != (reason is None):
            raise InputError("alarms", "--ack and --reason belong together", "both, or neither")
        if ack is not None and at is not None:
            raise InputError("alarms", "--ack and --at exclude each other", "one of them")
        if ack is not None and reason is not None:
            found = acknowledge(store, ack, reason, who or getuser())
            answer(as_json, asdict(found), f"{ack} is acknowledged")
            return
        known = every(open_store(store, at))[::-1]
        lines = [
            f"{a.id}: {a.sentence}{f' (acknowledged by {a.who}, {a.when}: {a.reason})' if a.reason else ''}"
            for a in known
        ]
        answer(as_json, {"alarms": [asdict(a) for a in known]}, "\n".join(lines) or "no alarm so far")


@app.command()
def name(
    store: StoreArg,
    descriptor: Annotated[str, typer.Argument(metavar="DESCRIPTOR", help="Such as osnet.")],
    cluster: Annotated[int, typer.Argument(metavar="CLUSTER", help="Its number in the report.", min=0)],
    text: Annotated[str, typer.Argument(metavar="NAME", help="Such as 'rear view, dark'.")],
    as_json: AsJson = False,
) -> None:
    """Name a cluster; the name stays with it through every refit."""
    with session(as_json, quiet=False):
        from streamclust.stages.names import name_cluster
        from streamclust.store.store import open_store

        kept = name_cluster(open_store(store), descriptor, cluster, text)
        answer(as_json, {"descriptor": descriptor, "cluster": cluster, "name": kept}, f"{descriptor} {cluster}: {kept}")


@app.command()
def refit(
    store: StoreArg,
    last: Annotated[int | None, typer.Option(help="Fit on the last N batches.", metavar="N", min=1)] = None,
    batch: Annotated[list[str] | None, typer.Option(help="Fit on this batch; may be repeated.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Put the proposal in force, and report anew.")] = False,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit anew on all batches, or some, and say what would change; cluster numbers and names stay."""
    flags = {"memory": memory, "workers": workers, "scheduler": scheduler}
    with session(as_json, quiet) as show:
        from streamclust import pipeline
        from streamclust.errors import InputError

        if last and batch:
            raise InputError("refit", "--last and --batch exclude each other", "one of them")
        stage = pipeline.refit_stage(last or batch, accept)
        result = pipeline.on_store(store, settings(config, flags), show, stage)
        pages = [f"{page}: {result[page]}" for page in ("comparison", "report") if page in result]
        answer(as_json, result, "\n".join([*result["changes"], *pages]))

"""What is in a store, what a run will cost, the table of results, and the demo."""

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
    StoreArg,
    Workers,
    answer,
    mb,
    session,
    settings,
)

app = typer.Typer()


@app.command()
def export(
    store: StoreArg,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file ending in .parquet, .csv or .pickle.")],
    at: At = None,
    memory: Memory = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """One row per image: path, batch, metadata, labels, scores, flags, reasons and places on the maps."""
    with session(as_json, quiet):
        from streamclust.exporting import export as write
        from streamclust.store.store import open_store

        rows = write(open_store(store, at), out, settings(None, {"memory": memory}).memory_bytes)
        answer(as_json, {"file": str(out), "rows": rows}, f"{rows:,} rows in {out}")


@app.command()
def info(store: StoreArg, at: At = None, as_json: AsJson = False) -> None:
    """What is in a store."""
    with session(as_json, quiet=False):
        from streamclust.pipeline import describe
        from streamclust.store.store import open_store

        facts = describe(open_store(store, at))
        answer(as_json, facts, "\n".join(f"{key}: {value}" for key, value in facts.items()))


@app.command()
def plan(
    source: Annotated[Path, typer.Argument(metavar="CASE|STORE", help="A case to come, or a store.")],
    command: Annotated[str, typer.Option("--for", help="Of which command: run, a step of it, or daily.")] = "run",
    memory: Memory = None,
    workers: Workers = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Passes, bytes, disk, peak memory and about the time of a command, before anything runs."""
    with session(as_json, quiet=False):
        from streamclust.pipeline import plan_for
        from streamclust.rates import measure_rates
        from streamclust.terminal import columns

        found = plan_for(source, settings(config, {"memory": memory, "workers": workers}), command)
        rates, worst = measure_rates(source), found.peak
        heads = ("step", "passes", "read", "written", "peak", "about")
        rows = [
            (s.name, s.passes, *map(mb, (s.bytes_read, s.bytes_written, s.peak_bytes)), _time(s.seconds(rates)))
            for s in found.steps
        ]
        last = f"{found.workers} workers, disk {mb(found.disk_bytes)}, peak {mb(worst.peak_bytes)} in {worst.name}, "
        last += f"about {_time(found.seconds(rates))} at the rates measured just now"
        facts = {
            "workers": found.workers,
            "disk_bytes": found.disk_bytes,
            "peak_bytes": found.peak.peak_bytes,
            "seconds": found.seconds(rates),
            "rates": vars(rates),
            "steps": [vars(step) | {"seconds": step.seconds(rates)} for step in found.steps],
        }
        answer(as_json, facts, f"{columns(heads, rows)}\n{last}")


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the case, the store and the report go.")] = Path(
        "demo-out"
    ),
    images: Annotated[int, typer.Option(help="How many pictures are drawn.", min=200)] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of the drawing.", min=0)] = 0,
    memory: Memory = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw a small traffic case with known truth, run all of it, and say how well it was understood."""
    with session(as_json, quiet) as show:
        from streamclust.demo.tour import tour

        result = tour(out, images, seed, settings(None, {"memory": memory, "workers": workers}), show)
        answer(as_json, result.facts, result.text)

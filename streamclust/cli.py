"""The command line: parse, call one library function, print. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamclust.errors import InputError, StreamclustError

if TYPE_CHECKING:
    from streamclust.job import Job

app = typer.Typer(
    help="Image descriptors to clusters, labels, outliers and density images, out of core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StoreArg = Annotated[Path, typer.Argument(metavar="STORE", help="The store's folder.")]
CaseArg = Annotated[Path, typer.Argument(metavar="CASE", help="A folder with descriptors/ and images_paths.csv.")]
Batch = Annotated[str | None, typer.Option(help="Name of the batch; by default the case folder's.", metavar="ID")]
Pictures = Annotated[Path | None, typer.Option(help="Pictures, if not in the case.", metavar="DIR|ZIP")]
Columns = Annotated[
    str | None, typer.Option(help="Columns to use from the CSV, such as camera=CAM,time=TS.", metavar="NAME=COL,..")
]
Encoding = Annotated[str | None, typer.Option("--path-encoding", help="Text encoding of images_paths.csv.")]
Memory = Annotated[str | None, typer.Option(help="Budget of the whole job, such as 4GB.")]
Workers = Annotated[int | None, typer.Option(help="Threads; by default one per core.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler.", metavar="ADDRESS")]
Config = Annotated[Path | None, typer.Option(help="Settings as TOML.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
K = Annotated[int | None, typer.Option("--k", help="Number of clusters, instead of the chosen one.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]


def _version(wanted: bool) -> None:
    if wanted:
        from streamclust import __version__

        print(f"streamclust {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,
) -> None:
    """Image descriptors to clusters, labels, outliers and density images, out of core."""


@app.command()
def run(
    store: StoreArg,
    case: CaseArg,
    batch: Batch = None,
    pictures: Pictures = None,
    columns: Columns = None,
    path_encoding: Encoding = None,
    k: K = None,
    group_by: Annotated[str | None, typer.Option(help="Metadata column to group the report by.")] = None,
    seed: Seed = None,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """All of it: ingest, reduce, cluster, outliers, map, pictures and a report."""
    flags = {"ingest.path_encoding": path_encoding, "cluster.k": k, "render.group_by": group_by, "seed": seed}
    flags |= {"memory": memory, "workers": workers, "scheduler": scheduler}
    with _session(as_json, quiet) as show:
        from streamclust.pipeline import run as run_all

        result = run_all(
            store,
            case,
            _settings(config, flags),
            batch=batch,
            pictures=pictures,
            columns=_pairs(columns),
            listener=show,
        )
        _answer(as_json, result.summary(), f"report: {result.report}")


@app.command()
def ingest(
    store: StoreArg,
    case: CaseArg,
    batch: Batch = None,
    pictures: Pictures = None,
    columns: Columns = None,
    path_encoding: Encoding = None,
    seed: Seed = None,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Bring a case in as a batch; the same rows again are a no-op."""
    flags = {"ingest.path_encoding": path_encoding, "seed": seed}
    flags |= {"memory": memory, "workers": workers, "scheduler": scheduler}
    with _session(as_json, quiet) as show:
        from streamclust.pipeline import ingest_case

        job, name = ingest_case(
            store,
            case,
            _settings(config, flags),
            batch=batch,
            pictures=pictures,
            columns=_pairs(columns),
            listener=show,
        )
        _answer(as_json, {"store": str(job.store.path), "batch": name, "rows": job.store.n}, f"{name}: {job.store}")


def _stage(name: str, text: str) -> None:
    """A command that runs one stage on a store."""

    def command(
        store: StoreArg,
        k: K = None,
        seed: Seed = None,
        memory: Memory = None,
        workers: Workers = None,
        scheduler: Scheduler = None,
        config: Config = None,
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        flags = {"cluster.k": k, "seed": seed, "memory": memory, "workers": workers, "scheduler": scheduler}
        with _session(as_json, quiet) as show:
            from streamclust import pipeline

            stage: Callable[[Job], dict[str, Any]] = pipeline.STAGES[name]
            result = pipeline.on_store(store, _settings(config, flags), show, stage)
            _answer(as_json, result, "\n".join(f"{key}: {value}" for key, value in result.items()))

    command.__doc__ = text
    app.command(name)(command)


_stage("fit", "Scale, reduce and cluster every descriptor; labels every row.")
_stage("predict", "Label batches that came since, with the models as they are.")
_stage("outliers", "Noise, outlier scores, flags and reasons for every row.")
_stage("map", "Place every row on a two-dimensional map.")
_stage("render", "Density, cluster and outlier images.")
_stage("report", "One self-contained HTML page of everything in the store.")


@app.command()
def export(
    store: StoreArg,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file ending in .parquet, .csv or .pickle.")],
    memory: Memory = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """One row per image: path, batch, metadata, labels, scores, flags, reasons and places on the maps."""
    with _session(as_json, quiet):
        from streamclust.exporting import export as write
        from streamclust.store.store import open_store

        rows = write(open_store(store), out, _settings(None, {"memory": memory}).memory_bytes)
        _answer(as_json, {"file": str(out), "rows": rows}, f"{rows:,} rows in {out}")


@app.command()
def info(store: StoreArg, as_json: AsJson = False) -> None:
    """What is in a store."""
    with _session(as_json, quiet=False):
        from streamclust.pipeline import describe
        from streamclust.store.store import open_store

        facts = describe(open_store(store))
        _answer(as_json, facts, "\n".join(f"{key}: {value}" for key, value in facts.items()))


@app.command()
def plan(
    source: Annotated[Path, typer.Argument(metavar="CASE|STORE", help="A case to come, or a store.")],
    memory: Memory = None,
    workers: Workers = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Passes, bytes, disk and peak memory of a run, before anything runs."""
    with _session(as_json, quiet=False):
        from streamclust.pipeline import plan_for
        from streamclust.terminal import columns

        found = plan_for(source, _settings(config, {"memory": memory, "workers": workers}))
        heads = ("step", "passes", "read", "written", "peak")
        rows = [(s.name, s.passes, *map(_mb, (s.bytes_read, s.bytes_written, s.peak_bytes))) for s in found.steps]
        worst = found.peak
        last = f"{found.workers} workers, disk {_mb(found.disk_bytes)}, peak {_mb(worst.peak_bytes)} in {worst.name}"
        facts = {
            "workers": found.workers,
            "disk_bytes": found.disk_bytes,
            "peak_bytes": found.peak.peak_bytes,
            "steps": [vars(step) for step in found.steps],
        }
        _answer(as_json, facts, f"{columns(heads, rows)}\n{last}")


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
    with _session(as_json, quiet) as show:
        from streamclust.demo.tour import tour

        result = tour(out, images, seed, _settings(None, {"memory": memory, "workers": workers}), show)
        _answer(as_json, result.facts, result.text)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _settings(path: Path | None, flags: dict[str, Any]) -> Any:
    from streamclust.config import load_settings

    return load_settings(path, flags)


def _pairs(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [part.split("=", 1) for part in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise InputError(f"--columns {text}", "not readable", "NAME=COLUMN,NAME=COLUMN, such as camera=cam_id")
    return {name.strip(): column.strip() for name, column in pairs}


def _answer(as_json: bool, facts: dict[str, Any], text: str) -> None:
    print(json.dumps(facts, default=str) if as_json else text)


@contextmanager
def _session(as_json: bool, quiet: bool) -> Iterator[Any]:
    """A listener to show progress with; errors become one line on stderr and the exit code of their kind."""
    from streamclust.terminal import listener

    show = listener(quiet=quiet or as_json)
    try:
        with show:
            yield show
    except StreamclustError as error:
        _fail(as_json, str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail(as_json, "interrupted; run the same command again to carry on", 130)
    except MemoryError:
        _fail(as_json, "out of memory: give fewer --workers or a --memory budget to be told before", 1)
    except OSError as error:
        _fail(as_json, f"{error.filename or 'system'}: {error.strerror or error}", 1)


def _fail(as_json: bool, text: str, code: int) -> None:
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
    print(f"streamclust: {text}", file=sys.stderr)
    raise SystemExit(code)


def main() -> None:
    """The entry point of the console script; a misspelt option is one line too."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        _fail("--json" in sys.argv, "interrupted", 130)
    except Exception as error:
        message = getattr(error, "format_message", None)  # typer's usage errors have no public base class
        if message is None:
            raise
        if len(sys.argv) == 1:
            raise SystemExit(2) from None  # the help was printed
        _fail("--json" in sys.argv, f"{message().rstrip('.')}; see streamclust --help", 2)
    raise SystemExit(code or 0)

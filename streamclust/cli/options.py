"""What the commands share: their options, and a session that turns errors into one line and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from streamclust.errors import InputError, StreamclustError

StoreArg = Annotated[Path, typer.Argument(metavar="STORE", help="The store's folder.")]
CaseArg = Annotated[Path, typer.Argument(metavar="CASE", help="A folder with descriptors/ and images_paths.csv.")]
Batch = Annotated[str | None, typer.Option(help="Name of the batch; by default the case folder's.", metavar="ID")]
Pictures = Annotated[Path | None, typer.Option(help="Pictures, if not in the case.", metavar="DIR|ZIP")]
Columns = Annotated[
    str | None, typer.Option(help="Columns to use from the CSV, such as camera=CAM,time=TS.", metavar="NAME=COL,..")
]
Parts = Annotated[
    str | None,
    typer.Option(help="Files that are one descriptor in parts, such as osnet=osnet-*.npy.", metavar="NAME=PATTERN,.."),
]
Encoding = Annotated[str | None, typer.Option("--path-encoding", help="Text encoding of images_paths.csv.")]
Memory = Annotated[str | None, typer.Option(help="Budget of the whole job, such as 4GB.")]
Workers = Annotated[int | None, typer.Option(help="Threads; by default one per core.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler.", metavar="ADDRESS")]
Config = Annotated[Path | None, typer.Option(help="Settings as TOML.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
At = Annotated[int | None, typer.Option("--at", help="As it was at this snapshot.", metavar="N")]
K = Annotated[int | None, typer.Option("--k", help="Number of clusters, instead of the chosen one.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]


def mb(size: int) -> str:
    """Megabytes."""
    return f"{size / 1e6:,.0f} MB"


def settings(path: Path | None, flags: dict[str, Any]) -> Any:
    """Settings from a file and flags."""
    from streamclust.config import load_settings

    return load_settings(path, flags)


def pairs(flag: str, text: str | None, example: str) -> dict[str, str] | None:
    """``NAME=VALUE,NAME=VALUE`` as a mapping."""
    if text is None:
        return None
    found = [part.split("=", 1) for part in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in found):
        raise InputError(f"{flag} {text}", "not readable", f"NAME=VALUE,NAME=VALUE, such as {example}")
    return {name.strip(): value.strip() for name, value in found}


def answer(as_json: bool, facts: dict[str, Any], text: str) -> None:
    """Print the facts as JSON, or the text."""
    print(json.dumps(facts, default=str) if as_json else text)


@contextmanager
def session(as_json: bool, quiet: bool) -> Iterator[Any]:
    """A listener to show progress with; errors become one line on stderr and the exit code of their kind."""
    from streamclust.terminal import listener, stoppable

    show = listener(quiet=quiet or as_json)
    try:
        with stoppable(), show:
            yield show
    except StreamclustError as error:
        fail(as_json, str(error), error.exit_code)


def fail(as_json: bool, text: str, code: int) -> None:
    """Say what is wrong, and end with the code."""
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
    print(f"streamclust: {text}", file=sys.stderr)
    raise SystemExit(code)

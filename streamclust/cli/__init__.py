"""The command line: parse, call one library function, print. Heavy imports wait until a command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from streamclust.cli import days, look, snapshots, upkeep, work
from streamclust.cli.options import fail

app = typer.Typer(
    help="Image descriptors to clusters, labels, outliers and density images, out of core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (work, days, look, upkeep, snapshots):
    app.add_typer(commands.app)


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


def main() -> None:
    """The entry point of the console script; a misspelt option is one line too."""
    try:
        code = app(prog_name="streamclust", standalone_mode=False)
    except typer.Abort:
        fail("--json" in sys.argv, "interrupted", 130)
    except Exception as error:
        message = getattr(error, "format_message", None)  # typer's usage errors have no public base class
        if message is None:
            raise
        if len(sys.argv) == 1:
            raise SystemExit(2) from None  # the help was printed
        fail("--json" in sys.argv, f"{message().rstrip('.')}; see streamclust --help", 2)
    raise SystemExit(code or 0)

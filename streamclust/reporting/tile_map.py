"""A folder with a zoomable map of one descriptor: what is drawn anew, what stays, the page and its index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from streamclust import tiling
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.reporting import tile_page
from streamclust.reporting.tile_drawing import Layer, Sheet, draw, put, tasks, units_of
from streamclust.reporting.tile_style import Style, make_style, sheet_of, touch_of
from streamclust.stages.tile_windows import Overview, Sources, overview, touched, unit_codes
from streamclust.stages.tiles import Cover, count_tiles, single

INDEX = "index.json"
FORMAT = 1  # of the index and of how tiles are drawn: after another one everything is drawn anew
GROWTH = 2.0  # times the rows, or those of the fullest place, at which colours are made anew


@dataclass(frozen=True)
class Asked:
    """What a map shall show beside the rows of all days.

    ``zoom`` is the deepest level (by default by the number of rows), ``days`` and pairs of days in ``differences``
    are given by the names of their batches.
    """

    zoom: int | None = None
    days: tuple[str, ...] = ()
    differences: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Drawn:
    """What was done: the page, rows on the map, tiles written and removed, and why everything was drawn if it was."""

    page: Path
    rows: int
    written: int
    removed: int
    reason: str


def tile_map(job: Job, out: Path, descriptor: str, asked: Asked) -> Drawn:
    """Draw the map of a descriptor into the folder ``out``, or bring it up to date; ``out/index.html`` shows it.

    Only tiles that new or withdrawn batches touch are drawn again, as long as the models stay and nothing has doubled.
    Days and differences that were asked for before stay.

    Raises
    ------
    InputError : ``out`` holds other things; the store has no map of that descriptor; a day is not on it.
    """
    index = _read_index(out, descriptor)
    cover = count_tiles(job, descriptor)
    extras = _extras(job, cover, asked, index)
    whole = overview(job, cover.sources)
    reason = _reason(job, index, cover, whole, asked)
    job.journal.note(f"{descriptor}: all tiles are drawn: {reason}" if reason else f"{descriptor}: changed tiles only")
    if not index:
        out.mkdir(parents=True, exist_ok=True)
        put(out / INDEX, json.dumps({"map of": descriptor}).encode())  # the folder is ours from here on
    with job.journal.stage(f"{descriptor}: draw tiles", whole.rows):
        style, written, removed = _draw_rows(job, out, cover, whole, index, asked.zoom, anew=bool(reason))
    index = index | {
        "map of": descriptor,
        "format": FORMAT,
        "parents": list(cover.parents),
        "frame": vars(cover.frame),
        "batches": dict(cover.batches),
        "style": asdict(style),
    }
    put(out / INDEX, json.dumps(index).encode())
    more, drawn = _draw_extras(job, out, cover, extras, style.zoom, index.get("extras", {}))
    shown = fingerprint(cover.batches, asdict(style))
    if index.get("images") != shown:
        tile_page.write_images(job, out, descriptor, style.zoom)
    index |= {"extras": drawn, "images": shown}
    tile_page.write_page(job, out, cover, whole, index)
    put(out / INDEX, json.dumps(index).encode())
    for left in out.glob(".drawing-*"):
        shutil.rmtree(left)
    return Drawn(out / "index.html", whole.rows, written + more, removed, reason)


def _read_index(out: Path, descriptor: str) -> dict[str, Any]:
    """What the folder says of itself; empty where nothing or only an unfinished map is in it."""
    if out.exists() and not out.is_dir():
        raise InputError(out, "a file", "a folder for the map")
    if not out.exists() or not any(out.iterdir()):
        return {}
    try:
        found: dict[str, Any] = json.loads((out / INDEX).read_bytes())
        owner = found["map of"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(out, "a folder with other things in it", "a map drawn before, or a new name") from None
    if owner != descriptor:
        raise InputError(out, f"the map of {owner}", f"one of {descriptor}, or a new name")
    return found if found.get("format") == FORMAT else {}


def _reason(job: Job, index: Mapping[str, Any], cover: Cover, whole: Overview, asked: Asked) -> str:
    """Why the tiles that are there cannot be brought up to date; empty if they can."""
    if not index:
        return "there is no map yet"
    if index["parents"] != list(cover.parents) or index["frame"] != vars(cover.frame):
        return "the models are new"
    style = index["style"]
    if asked.zoom is not None and asked.zoom != style["zoom"]:
        return f"level {asked.zoom} is asked for instead of {style['zoom']}"
    if max(whole.rows / max(style["rows"], 1), whole.fullest / max(style["fullest"], 1)) > GROWTH:
        return f"the rows, or those of the fullest place, are more than {GROWTH:g} times as many as its colours are for"
    gone = {name: digest for name, digest in index["batches"].items() if cover.batches.get(name) != digest}
    if any(single(job.store, cover.descriptor, name, digest) is None for name, digest in gone.items()):
        return "the counts of a batch that is gone are gone too"
    return ""


# ---- the rows of all days


def _draw_rows(
    job: Job, out: Path, cover: Cover, whole: Overview, index: Mapping[str, Any], zoom: int | None, *, anew: bool
) -> tuple[Style, int, int]:
    """Draw all tiles in a new style or the changed ones in the old; returns it, tiles written and tiles removed."""
    if anew:
        style = make_style(job, cover.sources, whole, zoom)
        sheet = sheet_of(job, cover, style)
        return style, draw_all(job, out / "tiles", [cover.sources], whole, sheet, style.zoom), 0
    style = Style.of(index["style"])
    return style, *_draw_changed(job, out, cover, style, index["batches"])


def draw_all(job: Job, folder: Path, sides: Sequence[Sources], whole: Overview, sheet: Sheet, zoom: int) -> int:
    """Draw all tiles beside the folder and put them in its place when they are done; returns how many.

    Goes on where a run was killed.
    """
    fresh = folder.with_name(f"{folder.name}.next")
    progress = fresh / f".drawing-{fingerprint(FORMAT, sides, zoom, asdict(sheet))[:12]}"
    if fresh.exists() and not progress.exists():
        shutil.rmtree(fresh)
    addresses = tasks(job, sides, zoom, unit_codes(whole.codes, zoom), None)
    written, _ = draw(job, addresses, replace(sheet, folder=fresh, progress=progress))
    shutil.rmtree(progress)
    if folder.exists():
        shutil.rmtree(folder)
    fresh.rename(folder)
    return written


def _draw_changed(job: Job, out: Path, cover: Cover, style: Style, before: Mapping[str, str]) -> tuple[int, int]:
    """Draw the tiles that batches touch which came or went since; returns tiles written and removed."""
    changed = sorted(before.items() ^ cover.batches.items())
    if not changed:
        return 0, 0
    sources = [(str(single(job.store, cover.descriptor, *batch)), 1) for batch in changed]
    sheet = sheet_of(job, cover, style)
    only = touched(job, sources, {layer.id: touch_of(layer, style) for layer in sheet.layers})
    plan = fingerprint(FORMAT, before, cover.batches, asdict(style))[:12]
    addresses = tasks(job, [cover.sources], style.zoom, units_of(only, style.zoom), only)
    return draw(job, addresses, replace(sheet, folder=out / "tiles", progress=out / f".drawing-{plan}"))


# ---- single days and differences


def _extras(job: Job, cover: Cover, asked: Asked, index: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Batches by folder of everything beside the whole: what is there and still can be, and what is asked for."""
    of = {batch.id: batch.name for batch in job.store.batches if batch.name in cover.batches}
    for day in (*asked.days, *(day for pair in asked.differences for day in pair)):
        if day not in of:
            some = ", ".join([*of][-5:])
            raise InputError(
                f"day {day}", f"is not on the map of {cover.descriptor}", f"one of {len(of)}, such as {some}"
            )
    kept = {f: tuple(about["batches"]) for f, about in index.get("extras", {}).items()}
    found = {folder: batches for folder, batches in kept.items() if set(batches) <= cover.batches.keys()}
    for days in (*((day,) for day in asked.days), *asked.differences):
        batches = tuple(of[day] for day in days)
        folder = "--".join(name.split("/", 1)[1] for name in batches)
        found[f"{'days' if len(days) == 1 else 'differences'}/{folder}"] = batches
    return found


def _draw_extras(
    job: Job, out: Path, cover: Cover, extras: Mapping[str, tuple[str, ...]], zoom: int, before: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Draw what is not there yet, remove what no longer can be; returns tiles written and what the index shall say."""
    written, drawn = 0, {}
    for folder in before.keys() - extras.keys():
        shutil.rmtree(out / folder, ignore_errors=True)
    for folder, batches in extras.items():
        sides = [[(str(single(job.store, cover.descriptor, name, cover.batches[name])), 1)] for name in batches]
        digest = fingerprint(FORMAT, vars(cover.frame), [cover.batches[name] for name in batches], zoom)[:16]
        if before.get(folder, {}).get("digest") != digest or not (out / folder).is_dir():
            about, tiles = _draw_extra(job, out / folder, sides, zoom)
            written += tiles
            drawn[folder] = about | {"digest": digest, "batches": list(batches)}
        else:
            drawn[folder] = before[folder]
    return written, drawn


def _draw_extra(job: Job, folder: Path, sides: Sequence[Sources], zoom: int) -> tuple[dict[str, Any], int]:
    wholes = [overview(job, side) for side in sides]
    together = [source for side in sides for source in side]
    both = overview(job, together)
    style = make_style(job, together, both, min(zoom, tiling.zoom_for(both.rows)))
    kind: Any = "density" if len(sides) == 1 else "difference"
    rows = wholes[0].rows, wholes[-1].rows
    sheet = Sheet(Path(), Path(), (Layer(kind, kind),), (), style.scales, style.marks, rows)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with job.journal.stage(f"draw {folder.parent.name}/{folder.name}", both.rows):
        written = draw_all(job, folder, sides, both, sheet, style.zoom)
    return {"style": asdict(style), "rows": list(rows)}, written

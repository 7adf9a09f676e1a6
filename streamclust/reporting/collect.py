"""Everything a report says, read from the store; the render room lays it out."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from streamclust import __version__, counts
from streamclust.job import Job
from streamclust.render import plots
from streamclust.render import report_data as rd
from streamclust.render.parts import Figure, Section
from streamclust.render.report import write_report
from streamclust.reporting import strangest
from streamclust.reporting.album import Album
from streamclust.reporting.consensus import describe_consensus
from streamclust.reporting.descriptors import describe
from streamclust.reporting.every_k import describe_every_k
from streamclust.reporting.images import draw_maps, draw_sheets
from streamclust.reporting.incoming import incoming
from streamclust.reporting.scalers import describe_scalers
from streamclust.stages.compare import table_key
from streamclust.stages.consensus import in_force
from streamclust.stages.sources import described, primary


def clusterings(job: Job) -> dict[str, str]:
    """The newest k-means model of each descriptor."""
    found = {d: job.store.snapshot.newest("model", f"{d}/kmeans") for d in described(job.store)}
    return {descriptor: model for descriptor, model in found.items() if model}


def render(job: Job) -> dict[str, bytes]:
    """Draw every map into the report's folder; returns the PNG bytes by file name."""
    folder = report_folder(job) / "index_files"
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, bytes] = {}
    for descriptor in clusterings(job):
        grid = job.store.snapshot.newest("grid", f"{descriptor}/grid")
        if grid is not None:
            drawn |= draw_maps(job, grid)
    for name, image in drawn.items():
        (folder / name).write_bytes(image)
    return drawn


def report_folder(job: Job) -> Path:
    """Where the report and its files lie."""
    return job.store.path / "report"


def write(job: Job, maps: Mapping[str, bytes]) -> Path:
    """Collect and write the report and the contact sheets; returns the page."""
    album = Album(job.store, job.settings.render.thumbnail, job.settings.workers or os.cpu_count() or 1)
    every, sheets = clusterings(job), report_folder(job) / "sheets"
    models = primary(every)
    shutil.rmtree(sheets, ignore_errors=True)  # those of clusters that are no more
    for model in models.values():
        draw_sheets(job, model, album, sheets)
    outliers = job.store.snapshot.newest("model", "outliers")
    chapters = tuple(describe(job, d, model, album, maps) for d, model in models.items())
    found = strangest.outliers(job, outliers, album) if outliers else None
    agreement = _agreement(job)
    data = rd.ReportData(
        title=f"{job.store.n:,} images, sorted",
        store=job.store.path.name,
        case=", ".join(batch.id for batch in job.store.batches),
        created=dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        incoming=incoming(job, outliers),
        descriptors=chapters,
        findings=tuple(_findings(job, chapters, found)),
        warnings=tuple(job.journal.warnings),
        agreement=agreement,
        outliers=found,
        sections=(*describe_scalers(job, every), *_consensus(job, album)),
        stages=tuple(
            rd.StageCost(
                stage=s.name,
                seconds=s.seconds,
                rows=s.rows,
                peak_pss=s.peak_bytes,
                bytes_read=s.bytes_read,
                bytes_written=s.bytes_written,
            )
            for s in job.journal.stages
        ),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        settings=tuple(_flat(job.settings.model_dump())),
        version=__version__,
    )
    page = report_folder(job) / "index.html"
    write_report(data, page)
    album.keep()
    return page


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", ", ".join(value) if isinstance(value, tuple) else str(value)


def _findings(job: Job, chapters: tuple[rd.DescriptorReport, ...], outliers: rd.Outliers | None) -> Iterator[str]:
    store = job.store
    yield f"{store.n:,} images came in with {len(store.descriptors)} descriptors: {', '.join(store.descriptors)}."
    for chapter in chapters:
        fine = f" and {chapter.fine.k} fine clusters" if chapter.fine else ""
        yield (
            f"{chapter.name}: {chapter.k} clusters{fine}; {chapter.components} of {chapter.dims} components "
            f"hold {chapter.variance:.0%} of the variance."
        )
    if outliers is not None:
        yield outliers.sentence


def _consensus(job: Job, album: Album) -> Iterator[Section]:
    """What the clusterings agree upon, a row per cluster; nothing where nobody asked for it."""
    model = in_force(job, primary(clusterings(job)))
    if model is not None:
        yield describe_consensus(job, model, album)


def _agreement(job: Job) -> rd.Agreement | None:
    name, every_k = job.store.snapshot.newest("comparison", "comparison"), describe_every_k(job)
    if name is None:
        return None if every_k is None else rd.Agreement(sentence="", figures=(), every_k=every_k)
    about = job.store.snapshot.entries[name].attributes
    figures = []
    for kind, title in (("label", "chosen clusters"), ("fine", "fine clusters")):
        names = list(dict.fromkeys(one for pair in about[kind] for one in pair))
        if not names:
            continue
        matrix = np.where(np.eye(len(names)) > 0, 1.0, np.nan)
        for a, b in about[kind]:
            value = counts.adjusted_mutual_info(job.store.read(name, table_key(kind, (a, b))))
            i, j = names.index(a), names.index(b)
            matrix[i, j] = matrix[j, i] = value
        caption = "Adjusted mutual information: 0 is what chance gives, 1 the same clusters."
        plain = all(one.endswith("/kmeans") for one in names)
        shown = [one.removesuffix("/kmeans") if plain else one.replace("/", " ") for one in names]
        image = plots.agreement_heatmap(shown, matrix, f"Agreement of the {title}")
        figures.append(Figure(title=f"Agreement of the {title}", image=image, caption=caption))
    sentence = " ".join(f"{key.replace('-', ' and ')}: {words}." for key, (_, words) in about["aligned"].items())
    return rd.Agreement(sentence=sentence, figures=tuple(figures), every_k=every_k)

"""Everything a report says, read from the store; the render room lays it out."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from streamclust import __version__, counts, quantiles
from streamclust.job import Job
from streamclust.render import plots, report_data as rd
from streamclust.render.report import write_report
from streamclust.reporting.album import Album
from streamclust.reporting.descriptors import describe, newest
from streamclust.reporting.images import draw_maps, draw_sheets
from streamclust.stages.fused import invalid_rows, score_order
from streamclust.stages.labels import labels_name
from streamclust.store import table

GROUPS_SHOWN = 40
INVALID_SHOWN = 50


def clusterings(job: Job) -> dict[str, str]:
    """The newest k-means model of each descriptor."""
    found = {d: newest(job, "model", f"{d}/kmeans") for d in sorted(job.store.descriptors)}
    return {descriptor: model for descriptor, model in found.items() if model}


def render(job: Job) -> dict[str, bytes]:
    """Draw every map into the report's folder; returns the PNG bytes by file name."""
    folder = report_folder(job) / "index_files"
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, bytes] = {}
    for descriptor in clusterings(job):
        grid = newest(job, "grid", f"{descriptor}/grid")
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
    album = Album(job.store, job.settings.render.thumbnail, os.cpu_count() or 1)
    models = clusterings(job)
    for model in models.values():
        draw_sheets(job, model, album, report_folder(job) / "sheets")
    outliers = newest(job, "model", "outliers")
    chapters = tuple(describe(job, d, model, album, maps) for d, model in models.items())
    found = _outliers(job, outliers, album) if outliers else None
    agreement = _agreement(job)
    data = rd.ReportData(
        title=f"{job.store.n:,} images, sorted",
        store=job.store.path.name,
        case=", ".join(batch.id for batch in job.store.batches),
        created=dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        incoming=_incoming(job, outliers),
        descriptors=chapters,
        findings=tuple(_findings(job, chapters, found)),
        warnings=tuple(job.journal.warnings),
        agreement=agreement,
        outliers=found,
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
    return page


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", str(value)


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


def _incoming(job: Job, outliers: str | None) -> rd.Incoming:
    store = job.store
    pictures = missing = 0
    for batch in store.batches:
        if batch.entry.attributes["pictures"] is not None:
            sizes = (store.read(batch.name, "images/picture_size", a, b) for o, a, b in table.blocks(store) if o is batch)
            there = sum(int((size >= 0).sum()) for size in sizes)
            pictures, missing = pictures + there, missing + batch.n - there
    about = [(b, name, d) for b in store.batches for name, d in b.entry.attributes["descriptors"].items()]
    descriptors = tuple(
        rd.DescriptorInput(
            name=name,
            dims=store.descriptors[name],
            dtype=next(d["dtype"] for _, n, d in about if n == name),
            rows=sum(b.n for b, n, _ in about if n == name),
            valid_rows=sum(d["valid"] for _, n, d in about if n == name),
        )
        for name in sorted(store.descriptors)
    )
    columns = tuple(table.layout(store).metadata)
    return rd.Incoming(
        rows=store.n,
        batches=tuple(rd.Batch(name=batch.id, rows=batch.n) for batch in store.batches),
        descriptors=descriptors,
        pictures=pictures,
        missing_pictures=missing,
        metadata_columns=columns,
        group_bys=tuple(_groups(job, column, outliers) for column in columns if _groupable(job, column)),
    )


def _groupable(job: Job, column: str) -> bool:
    """The column that was asked for; without one, what names a camera."""
    wanted = job.settings.render.group_by
    return column == wanted if wanted else column.lower() in {"camera", "cam", "camera_id", "site"}


def _groups(job: Job, column: str, outliers: str | None) -> rd.GroupBy:
    store, seen = job.store, dict[str, list[int]]()
    for batch, start, stop in table.blocks(store):
        if column not in batch.entry.attributes["columns"]:
            continue
        values = store.read(batch.name, f"images/{column}", start, stop).astype(str)
        name = labels_name(outliers, batch.name) if outliers else ""
        known = name in store.snapshot.entries
        flags = store.read(name, "outlier", start, stop) if known else np.zeros(stop - start, np.bool_)
        names, which = np.unique(values, return_inverse=True)
        rows, flagged = np.bincount(which), np.bincount(which, flags)
        for value, n, m in zip(names, rows, flagged, strict=True):
            total = seen.setdefault(str(value), [0, 0])
            total[0], total[1] = total[0] + int(n), total[1] + int(m)
    largest = sorted(seen.items(), key=lambda item: (-item[1][0], item[0]))[:GROUPS_SHOWN]
    groups = tuple(rd.Group(value=value, rows=n, outliers=m) for value, (n, m) in largest)
    return rd.GroupBy(column=column, groups=groups, total=len(seen))


def _agreement(job: Job) -> rd.Agreement | None:
    name = newest(job, "comparison", "comparison")
    if name is None:
        return None
    about = job.store.snapshot.entries[name].attributes
    names = sorted({d for pair in about["pairs"] for d in pair})
    figures = []
    for kind, title in (("label", "chosen clusters"), ("fine", "fine clusters")):
        matrix = np.eye(len(names))
        for a, b in about["pairs"]:
            value = counts.adjusted_mutual_info(job.store.read(name, f"{kind}/{a}-{b}"))
            i, j = names.index(a), names.index(b)
            matrix[i, j] = matrix[j, i] = value
        caption = "Adjusted mutual information: 0 is what chance gives, 1 the same clusters."
        image = plots.agreement_heatmap(names, matrix, f"Agreement of the {title}")
        figures.append(rd.Figure(title=f"Agreement of the {title}", image=image, caption=caption))
    sentence = " ".join(f"{key.replace('-', ' and ')}: {words}." for key, (_, words) in about["aligned"].items())
    return rd.Agreement(sentence=sentence, figures=tuple(figures))


def _outliers(job: Job, model: str, album: Album) -> rd.Outliers:
    store, about = job.store, job.store.snapshot.entries[model].attributes
    top = score_order(store, model, job.settings.outliers.shown)
    invalid = invalid_rows(store, model, INVALID_SHOWN)
    album.fetch([(batch, row) for batch, row, _ in top] + [(batch, row) for batch, row, _ in invalid])
    sketch = quantiles.from_arrays({
        part: store.read(model, f"scores/{part}") for part in ("head", "floor", "top", "bins", "counts")
    })
    shown = tuple(_outlier(job, model, album, i, row) for i, row in enumerate(top))
    edges = np.linspace(0, max(4.0, top[0][2] if top else 0.0), 81)
    above = np.array([1.0, *(quantiles.tail_of(sketch, edges[1:-1])), 0.0]) * sketch.count
    histogram = plots.score_histogram(-np.diff(above), edges, about["threshold"])
    caption = "How many images have which score; 2 means stranger than 99 % of all. The line is the threshold."
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in about["weights"].items())
    return rd.Outliers(
        scored=about["scored"],
        flagged=about["flagged"] + about["invalid"],
        budget=about["budget"],
        threshold=about["threshold"],
        top=shown,
        histogram=rd.Figure(title="Outlier scores", image=histogram, caption=caption),
        weights=tuple(about["weights"].items()),
        precision=tuple(_precision(sketch, about["budget"])),
        invalid=tuple(
            rd.InvalidRow(path=album.thumb((b, row)).path, batch=_id(job, b), descriptor=words.split(":")[0], problem=words)
            for b, row, words in invalid
        ),
        invalid_total=about["invalid"],
        sentence=(
            f"{about['flagged']:,} images are flagged as outliers (budget {about['budget']:.1%} of {about['scored']:,})"
            + (f", and {about['invalid']:,} more have values that are no numbers" if about["invalid"] else "")
            + f"; the descriptors weigh {weights}."
        ),
    )


def _id(job: Job, batch: str) -> str:
    return str(job.store.snapshot.entries[batch].attributes["id"])


def _outlier(job: Job, model: str, album: Album, rank: int, found: tuple[str, int, float]) -> rd.Outlier:
    batch, row, score = found
    reason = table.reasons(job.store, labels_name(model, batch), row, row + 1)[0]
    return rd.Outlier(rank=rank + 1, thumb=album.thumb((batch, row)), score=score, reason=reason, batch=_id(job, batch))


def _precision(sketch: quantiles.QuantileSketch, budget: float) -> Iterator[rd.Precision]:
    for share in (budget / 4, budget / 2, budget, 2 * budget, 5 * budget):
        if share < 1 and int(share * sketch.count) > 0:
            threshold = quantiles.threshold_above(sketch, share)
            yield rd.Precision(budget=share, rows=int(share * sketch.count), threshold=threshold)

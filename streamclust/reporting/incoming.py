"""What a report says of what came in: batches, descriptors, pictures, and groups such as cameras."""

from __future__ import annotations

import numpy as np

from streamclust.job import Job
from streamclust.render import report_data as rd
from streamclust.stages.labels import labels_name
from streamclust.store import table

GROUPS_SHOWN = 40


def incoming(job: Job, outliers: str | None) -> rd.Incoming:
    """The chapter on what came in; ``outliers`` names the fused model, if there is one."""
    store = job.store
    pictures = missing = 0
    for batch in store.batches:
        if batch.entry.attributes["pictures"] is not None:
            sizes = (
                store.read(batch.name, "images/picture_size", a, b) for o, a, b in table.blocks(store) if o is batch
            )
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
        values = store.read(batch.name, f"images/{column}", start, stop).astype(np.dtypes.StringDType())
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

"""The main job and its stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamclust.cli.options import (
    AsJson,
    Batch,
    CaseArg,
    Columns,
    Config,
    Encoding,
    K,
    Memory,
    Parts,
    Pictures,
    Quiet,
    Scheduler,
    Seed,
    StoreArg,
    Workers,
    answer,
    pairs,
    session,
    settings,
)

if TYPE_CHECKING:
    from streamclust.job import Job

app = typer.Typer()


@app.command()
def run(
    store: StoreArg,
    case: CaseArg,
    batch: Batch = None,
    pictures: Pictures = None,
    columns: Columns = None,
    parts: Parts = None,
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
    flags: dict[str, Any] = {"ingest.path_encoding": path_encoding, "cluster.k": k, "render.group_by": group_by}
    flags |= {"seed": seed, "memory": memory, "workers": workers, "scheduler": scheduler}
    with session(as_json, quiet) as show:
        from streamclust.pipeline import run as run_all

        flags["ingest.parts"] = pairs("--parts", parts, "osnet=osnet-*.npy")
        result = run_all(
            store,
            case,
            settings(config, flags),
            batch=batch,
            pictures=pictures,
            columns=pairs("--columns", columns, "camera=cam_id"),
            listener=show,
        )
        answer(as_json, result.summary(), f"report: {result.report}")


@app.command()
def ingest(
    store: StoreArg,
    case: CaseArg,
    batch: Batch = None,
    pictures: Pictures = None,
    columns: Columns = None,
    parts: Parts = None,
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
    flags: dict[str, Any] = {"ingest.path_encoding": path_encoding, "seed": seed}
    flags |= {"memory": memory, "workers": workers, "scheduler": scheduler}
    with session(as_json, quiet) as show:
        from streamclust.pipeline import ingest_case

        flags["ingest.parts"] = pairs("--parts", parts, "osnet=osnet-*.npy")
        job, name = ingest_case(
            store,
            case,
            settings(config, flags),
            batch=batch,
            pictures=pictures,
            columns=pairs("--columns", columns, "camera=cam_id"),
            listener=show,
        )
        with job:
            answer(as_json, {"store": str(job.store.path), "batch": name, "rows": job.store.n}, f"{name}: {job.store}")


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
        with session(as_json, quiet) as show:
            from streamclust import pipeline

            stage: Callable[[Job], dict[str, Any]] = pipeline.STAGES[name]
            result = pipeline.on_store(store, settings(config, flags), show, stage)
            answer(as_json, result, "\n".join(f"{key}: {value}" for key, value in result.items()))

    command.__doc__ = text
    app.command(name)(command)


_stage("fit", "Scale, reduce and cluster every descriptor; labels every row.")
_stage("predict", "Label batches that came since, with the models as they are.")
_stage("outliers", "Noise, outlier scores, flags and reasons for every row.")
_stage("map", "Place every row on a two-dimensional map.")
_stage("render", "Density, cluster and outlier images.")
_stage("report", "One self-contained HTML page of everything in the store.")

"""The main job and its parts, as the command line and Python call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from streamclust import costs
from streamclust.blocks import executor, one_blas_thread
from streamclust.budget import shapes_of_case, shapes_of_store, workers
from streamclust.config import Settings
from streamclust.errors import InputError
from streamclust.ingest import ingest as ingest_batch
from streamclust.job import Job
from streamclust.journal import Journal, Listener, Silent, large_arrays_go_back
from streamclust.readers.case import Case, open_case
from streamclust.reporting import collect
from streamclust.reporting.refit import collect_refit, write_refit
from streamclust.stages import algorithms, clusters, compare, consensus, fused, grids, maps, reduced, refit, strangeness
from streamclust.stages.every_k import compare_every_k
from streamclust.stages.sources import described, primary
from streamclust.store.store import Store, create, open_store


@dataclass(frozen=True)
class RunResult:
    """A finished run: the open store, the report's page, and what happened."""

    store: Store
    report: Path
    journal: Journal

    def summary(self) -> dict[str, Any]:
        """The run in plain values."""
        stages = [
            {"stage": s.name, "seconds": round(s.seconds, 2), "peak_bytes": s.peak_bytes} for s in self.journal.stages
        ]
        found = describe(self.store) | {"report": str(self.report), "warnings": self.journal.warnings, "stages": stages}
        return found | {"peak_bytes": max((s.peak_bytes for s in self.journal.stages), default=0)}


def run(
    store: Path | str,
    case: Path | str,
    settings: Settings | None = None,
    *,
    batch: str | None = None,
    pictures: Path | None = None,
    columns: Mapping[str, str] | None = None,
    listener: Listener | None = None,
) -> RunResult:
    """Ingest a case into a store and do all of it: reduce, cluster, outliers, map, pictures, report.

    What an earlier run already did is not done again; a run that was killed carries on where it stopped.

    Raises
    ------
    InputError : the case, the store or a setting cannot be used. BudgetError : ``settings.memory`` cannot hold.
    """
    job, _ = ingest_case(store, case, settings, batch=batch, pictures=pictures, columns=columns, listener=listener)
    with job:
        for stage in (fit, score, place):
            stage(job)
        return RunResult(job.store, report(job), job.journal)


def ingest_case(
    store: Path | str,
    case: Path | str,
    settings: Settings | None = None,
    *,
    batch: str | None = None,
    pictures: Path | None = None,
    columns: Mapping[str, str] | None = None,
    listener: Listener | None = None,
) -> tuple[Job, str]:
    """Bring a case in as a batch; returns the job to go on with, which the caller closes, and the batch's name."""
    settings = settings or Settings()
    pictures = pictures.absolute() if pictures else None  # workers may stand in another folder
    reading = settings.ingest
    opened = open_case(
        Path(case).absolute(),
        pictures=pictures,
        columns=columns,
        path_encoding=reading.path_encoding,
        parts=reading.parts,
    )
    _check_k(opened, settings)
    plan = costs.within(shapes_of_case(opened), settings, workers(settings))
    job = _job(partial(create, Path(store)), settings, plan.workers, listener or Silent())
    return job, ingest_batch(job, opened, batch)


def prepare_day(job: Job, case: Case) -> None:
    """Hold a case's plan against the budget: fewer workers from here on where it does not allow as many.

    Raises
    ------
    BudgetError : not even one worker fits.
    """
    wanted = workers(job.settings)
    allowed = costs.within(shapes_of_case(case), job.settings, wanted, "daily").workers
    if allowed < wanted:
        job.executor.close()
        job.executor = executor(job.settings.scheduler, allowed, job.journal.listener.progress)


def open_job(store: Path | str, settings: Settings, listener: Listener) -> Job:
    """A job on a store that is there and fitted."""
    opened = open_store(store)
    job = _job(lambda: opened, settings, workers(settings), listener)
    _fitted(job)
    return job


def on_store(
    store: Path | str, settings: Settings, listener: Listener | None, stage: Callable[[Job], dict[str, Any]]
) -> dict[str, Any]:
    """Open a store and run one stage on it."""
    opened = open_store(store)
    if not opened.batches:
        raise InputError(opened.path, "the store is empty", "at least one batch", "streamclust ingest STORE CASE")
    plan = costs.within(shapes_of_store(opened), settings, workers(settings))
    with _job(lambda: opened, settings, plan.workers, listener or Silent()) as job:
        return stage(job)


@one_blas_thread()
def fit(job: Job) -> dict[str, str]:
    """Reduce and cluster every descriptor and compare them; returns the k-means model of each.

    Where something was fitted before, this is a refit on all batches, so that ids and names stay.
    """
    known = collect.clusterings(job)
    projections = reduced.reduce(job, [d for d in reduced.asked(job) if d not in known])
    new = {d: clusters.cluster(job, projection) for d, projection in projections.items()}
    models = known | new
    if known and refit.propose(job).changes:
        models |= refit.accept(job)
    _beside(job, models)
    return models


def _beside(job: Job, models: Mapping[str, str]) -> None:
    """What follows from the k-means models: the further algorithms, how far all agree, and on what."""
    for model in models.values():
        algorithms.cluster_again(job, model)
    comparison, voters = compare.compare(job, models), primary(models)
    compare_every_k(job, models)
    if comparison and job.settings.algorithms.consensus and len(compare.clusterings(job, voters)) > 1:
        consensus.agree(job, voters, comparison)


@one_blas_thread()
def predict(job: Job) -> dict[str, str]:
    """Label, score and place the batches that the newest models have not seen, with those models as they are."""
    newest, models, seen = job.store.snapshot.newest, _fitted(job), dict[str, list[str]]()
    reduced.extend(job, [job.store.snapshot.entries[model].attributes["parents"][0] for model in models.values()])
    for descriptor, model in models.items():
        seen[f"{descriptor} labels"] = clusters.predict(job, model)
        for algorithm, other in algorithms.beside(job.store, model).items():
            seen[f"{descriptor} {algorithm}"] = algorithms.predict(job, other)
        if measured := newest("model", f"{descriptor}/strangeness"):
            seen[f"{descriptor} outliers"] = strangeness.predict(job, measured)
        if placed := newest("model", f"{descriptor}/map"):
            seen[f"{descriptor} map"] = maps.predict(job, placed)
    if agreed := consensus.in_force(job, primary(models)):
        seen["consensus"] = consensus.predict(job, agreed)
    if judged := newest("model", "outliers"):
        seen["outliers"] = fused.predict(job, judged)
    return {what: ", ".join(batches) or "up to date" for what, batches in seen.items()}


@one_blas_thread()
def score(job: Job) -> dict[str, Any]:
    """Noise, scores, flags and reasons of every row; returns what was flagged.

    The mix has a score of its own, but none in the fused one: it would count its parts twice.
    """
    models, own = primary(_fitted(job)), job.store.descriptors
    parents = {d: job.store.snapshot.entries[m].attributes["parents"][0] for d, m in models.items()}
    measured = {d: strangeness.measure(job, parents[d], model) for d, model in models.items()}
    fusion = fused.fuse(job, {d: model for d, model in measured.items() if d in own})
    about = job.store.snapshot.entries[fusion].attributes
    return {key: about[key] for key in ("scored", "flagged", "invalid", "budget", "threshold", "weights")}


@one_blas_thread()
def place(job: Job) -> dict[str, str]:
    """The map of each descriptor; returns the models' names."""
    parents = {d: job.store.snapshot.entries[m].attributes["parents"][0] for d, m in primary(_fitted(job)).items()}
    return dict(zip(parents, maps.maps(job, list(parents.values())), strict=True))


def draw(job: Job) -> dict[str, bytes]:
    """Count grids and map pictures of every descriptor that has a map: PNG bytes by file name."""
    outliers = job.store.snapshot.newest("model", "outliers")
    for descriptor, model in primary(_fitted(job)).items():
        found = job.store.snapshot.newest("model", f"{descriptor}/map")
        if found and outliers:
            grids.grids(job, found, model, outliers)
    with large_arrays_go_back(), job.journal.stage("draw maps", job.store.n):
        return collect.render(job)


def report(job: Job) -> Path:
    """Draw the maps, read the pictures and write the page; returns where it is."""
    drawn = draw(job)
    with large_arrays_go_back(), job.journal.stage("report", job.store.n):
        page = collect.write(job, drawn)
    job.store.sweep()
    return page


def _drawn(job: Job) -> dict[str, Any]:
    return {"folder": str(collect.report_folder(job) / "index_files"), "images": ", ".join(draw(job))}


def refit_stage(days: int | Sequence[str] | None, accept: bool) -> Callable[[Job], dict[str, Any]]:
    """A stage that proposes a refit, says what it would change and, if it is accepted, does all that follows."""

    def stage(job: Job) -> dict[str, Any]:
        proposal = refit.propose(job, days)
        changes = [refit.words(change) for change in proposal.changes.values()] or ["nothing would change"]
        comparison = collect_refit(job, proposal)
        page = write_refit(job, comparison)
        found: dict[str, Any] = {"days": list(proposal.days), "changes": changes, "comparison": str(page)}
        if accept:
            if proposal.changes:
                refit.accept(job)
            _beside(job, _fitted(job))
            score(job)
            place(job)
            found["report"] = str(report(job))
            write_refit(job, replace(comparison, accepted=True))
        return found

    return stage


STAGES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "fit": lambda job: dict(fit(job)),
    "predict": lambda job: dict(predict(job)),
    "outliers": score,
    "map": lambda job: dict(place(job)),
    "render": _drawn,
    "report": lambda job: {"report": str(report(job))},
}


def describe(store: Store) -> dict[str, Any]:
    """What is in a store, in plain values."""
    entries, newest = store.snapshot.entries, store.snapshot.newest
    fitted = {d: newest("model", f"{d}/kmeans") for d in described(store)}
    outliers = newest("model", "outliers")
    return {
        "store": str(store.path),
        "snapshot": store.snapshot.number,
        "images": store.n,
        "batches": {batch.id: batch.n for batch in store.batches},
        "descriptors": store.descriptors,
        "clusters": {d: entries[model].attributes["clusters"] for d, model in fitted.items() if model},
        "algorithms": {
            f"{d} {name}": entries[other].attributes["clusters"]
            for d, model in fitted.items()
            if model
            for name, other in algorithms.beside(store, model).items()
        },
        "flagged": entries[outliers].attributes["flagged"] if outliers else None,
    }


def _fitted(job: Job) -> dict[str, str]:
    models = collect.clusterings(job)
    if not models:
        raise InputError(job.store.path, "nothing was clustered yet", "a fitted store", "streamclust fit STORE")
    return models


def _check_k(case: Case, settings: Settings) -> None:
    for key, k in (("cluster.k", settings.cluster.k), ("cluster.fine_k", settings.cluster.fine_k)):
        if k and k > case.paths.n:
            raise InputError(
                f"setting {key} = {k}", f"{case.folder} has {case.paths.n} rows", f"at most {case.paths.n}"
            )


def _job(opening: Callable[[], Store], settings: Settings, workers: int, listener: Listener) -> Job:
    """The executor comes first: where no scheduler answers, no store is made."""
    found = executor(settings.scheduler, workers, listener.progress)
    return Job(opening(), settings, found, Journal(listener))

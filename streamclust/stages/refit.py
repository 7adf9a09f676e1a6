"""Fit anew without losing names: a proposal that nobody reads, what it would change, and its acceptance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamclust.blocks import one_blas_thread
from streamclust.cluster import matching
from streamclust.cluster.matching import Event, Matching, Move
from streamclust.config import MIX
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.stages import clusters, reduced
from streamclust.stages.names import LEVELS, Level, cluster_ids, origins
from streamclust.stages.refit_tables import compare
from streamclust.stages.sources import came_as
from streamclust.store.entries import Snapshot
from streamclust.store.store import Batch, Store
from streamclust.store.trial import PROPOSED, Trial, proposed

Days = int | Sequence[str] | None


@dataclass(frozen=True)
class Change:
    """What becomes of one descriptor.

    Attributes
    ----------
    model, before : the proposed k-means model, and the one in force (none for a new descriptor).
    label, fine : ids and events of the chosen and the fine clustering.
    moves : (id now, id then, rows) of the chosen clustering, most rows first.
    rows : id then -> up to 12 row numbers in the snapshot, drawn at random from those that would come under it.
    """

    descriptor: str
    model: str
    before: str | None
    label: Matching
    fine: Matching
    moves: tuple[Move, ...]
    rows: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Proposal:
    """A refit that waits: the days it was fitted on, by id, and what would change, by descriptor.

    Without changes nothing waits: the models in force are of these very days.
    """

    days: tuple[str, ...]
    changes: Mapping[str, Change]


@one_blas_thread()
def propose(job: Job, days: Days = None) -> Proposal:
    """Fit projection and k-means of every descriptor anew and compare them with the models in force.

    ``days`` are ids of batches, or how many of the last ones, or None for all. Nothing is in force until `accept`. The
    same inputs again are a no-op, other ones replace the proposal, a killed run carries on. A descriptor that none of
    the days has keeps its model.

    Raises
    ------
    InputError : there is no such day, or nothing to fit on.
    """
    store, chosen = job.store, _chosen(job.store, days)
    names = [batch.name for batch in chosen]
    before = {d: store.snapshot.newest("model", f"{d}/kmeans") for d in reduced.asked(job)}
    settings = [getattr(job.settings, name).model_dump(exclude={"also"}) for name in ("reduce", "mix", "cluster")]
    key = fingerprint(names, before, settings, job.settings.seed)
    found = _fit(job, key, names, before)
    fitted = {d: model for d, model in found.items() if model != before[d]}
    if fitted:
        _publish(job, key, fitted, before, [batch.id for batch in chosen])
    elif stale := proposed(store.snapshot):
        store.publish("discard refit", {}, remove=tuple(stale))
    return waiting(store) or Proposal(tuple(batch.id for batch in chosen), {})


def _chosen(store: Store, days: Days) -> list[Batch]:
    if isinstance(days, int):
        if days < 1:
            raise InputError("the days to fit on", f"the last {days}", "at least 1")
        return store.batches[-days:]
    if days is None:
        found = list(store.batches)
    else:
        known = {batch.id for batch in store.batches}
        if unknown := sorted(set(days) - known):
            raise InputError(store.path, f"no batch {unknown[0]!r}", "batches that streamclust info STORE lists")
        found = [batch for batch in store.batches if batch.id in days]
    if not found:
        raise InputError(store.path, "no batch to fit on", "at least one")
    return found


def _fit(job: Job, key: str, batches: Sequence[str], before: Mapping[str, str | None]) -> dict[str, str]:
    """A model of each descriptor that the batches have, labelling every batch; proposed unless it is in force."""
    some = replace(job, store=Trial(job.store, key, batches))
    there = sorted(d for d in before if any(_has(job, batch, d) for batch in some.store.batches))
    projections = reduced.reduce(some, there)
    found = {d: clusters.cluster(some, projections[d], before[d]) for d in there}
    job.store.refresh()
    for model in found.values():
        if job.store.snapshot.entries[model].kind != "model":
            clusters.predict(replace(job, store=Trial(job.store, key)), model)
    job.store.refresh()
    return found


def _has(job: Job, batch: Batch, descriptor: str) -> bool:
    return all(map(batch.has, job.settings.mix.of if descriptor == MIX else [came_as(descriptor)]))


def _publish(
    job: Job, key: str, fitted: Mapping[str, str], before: Mapping[str, str | None], days: Sequence[str]
) -> None:
    """The comparison as an object of its own, in place of any other proposal."""
    trial = Trial(job.store, key)
    wanted = fingerprint("refit", fitted, before, [batch.name for batch in trial.batches])
    if trial.snapshot.find("refit", wanted) is None:
        name = f"models/refit-{trial.snapshot.number + 1:06d}"
        draft = trial.draft(name, "refit", wanted)
        changes = {d: compare(job, draft, d, model, before[d]) for d, model in fitted.items()}
        attributes = {"role": "refit", "days": list(days), "changes": changes}
        waits = proposed(job.store.snapshot)
        stale = tuple(n for n, entry in waits.items() if entry.attributes.get("model", n) not in fitted.values())
        trial.publish("propose refit", {name: (draft, draft.entry(attributes, {}))}, remove=stale)
        job.store.refresh()


def words(change: Change) -> str:
    """What becomes of one descriptor, in a line."""
    if change.before is None:
        return f"{change.descriptor}: {len(change.label.ids)} clusters, the first"
    share = change.label.changed / max(change.label.shared, 1)
    events = ", ".join(f"{e.kind} {list(e.old)} -> {list(e.new)}" for e in change.label.events)
    return f"{change.descriptor}: {change.label.changed:,} rows ({share:.1%}) would change; {events or 'no events'}"


def waiting(store: Store) -> Proposal | None:
    """The proposal that waits in a store, if one does."""
    name = _waiting(store.snapshot)
    if name is None:
        return None
    about = store.snapshot.entries[name].attributes
    return Proposal(tuple(about["days"]), {d: _change(store, name, d) for d in about["changes"]})


def _waiting(snapshot: Snapshot) -> str | None:
    return snapshot.newest(f"{PROPOSED}refit", "refit")


def _change(store: Store, proposal: str, descriptor: str) -> Change:
    entry = store.snapshot.entries[proposal]
    about = entry.attributes["changes"][descriptor]
    found = {level: _matching(about[level]) for level in LEVELS}
    moves: tuple[Move, ...] = ()
    rows: dict[int, tuple[int, ...]] = {}
    if about["before"] is not None:
        ids = found["label"].ids
        table = store.read(proposal, f"{descriptor}/table")
        moves = matching.moves(table, cluster_ids(store, about["before"]), ids)
        drawn = store.read(proposal, f"{descriptor}/rows")
        rows = {i: tuple(int(r) for r in row[row >= 0]) for i, row in zip(ids, drawn, strict=True) if row[0] >= 0}
    return Change(descriptor, about["model"], about["before"], found["label"], found["fine"], moves, rows)


def _matching(tree: Mapping[str, Any]) -> Matching:
    events = tuple(Event(e["kind"], tuple(e["old"]), tuple(e["new"])) for e in tree["events"])
    return Matching(tuple(tree["ids"]), tree["next_id"], tree["shared"], tree["changed"], events)


@one_blas_thread()
def accept(job: Job) -> dict[str, str]:
    """Put the proposal in force, in one manifest; returns the new k-means model of each descriptor.

    Batches that came since are labelled first. Outliers, maps and comparisons are those of the models before until
    their stages run again.

    Raises
    ------
    InputError : nothing is proposed, or it was compared with other models or batches than are stored now.
    """
    store = job.store
    store.refresh()
    name, proposal = _waiting(store.snapshot), waiting(store)
    if name is None or proposal is None:
        raise InputError(store.path, "no refit is proposed", "a proposal", "streamclust refit STORE")

    def check(newest: Snapshot) -> None:
        _check(Store(store.path, newest), name, proposal)

    check(store.snapshot)
    trial = Trial(store, store.snapshot.entries[name].attributes["proposal"])
    for change in proposal.changes.values():
        clusters.predict(replace(job, store=trial), change.model)
    trial.accept("accept refit", {c.model: _ids(trial, c) for c in proposal.changes.values()}, check)
    store.refresh()
    return {descriptor: change.model for descriptor, change in proposal.changes.items()}


def _ids(store: Store, change: Change) -> dict[str, Any]:
    """The ids of a model's clusters, and by them the batches that they were first fitted on."""
    found: dict[Level, Matching] = {"label": change.label, "fine": change.fine}
    own = tuple(
        store.snapshot.entries[store.snapshot.entries[change.model].attributes["parents"][0]].attributes["batches"]
    )
    meant: dict[Level, list[tuple[str, ...]]] = {}
    for level, matched in found.items():
        known = {}
        if change.before is not None:
            known = dict(
                zip(cluster_ids(store, change.before, level), origins(store, change.before, level), strict=True)
            )
        meant[level] = [known.get(i, own) for i in matched.ids]
    fits = sorted({fit for every in meant.values() for fit in every})
    return {
        "ids": {level: list(matched.ids) for level, matched in found.items()},
        "next_ids": {level: matched.next_id for level, matched in found.items()},
        "fits": [list(fit) for fit in fits],
        "origins": {level: [fits.index(fit) for fit in every] for level, every in meant.items()},
    }


def _check(store: Store, name: str, proposal: Proposal) -> None:
    """The proposal waits still, and what it was made from is as it was."""
    found = "" if name in store.snapshot.entries else "another one took its place"
    for batch in sorted(set(proposal.days) - {batch.id for batch in store.batches}):
        found = f"batch {batch!r} is no more"
    for descriptor, change in proposal.changes.items():
        if store.snapshot.newest("model", f"{descriptor}/kmeans") != change.before:
            found = f"{descriptor} was fitted anew since"
    if found:
        raise InputError("the proposed refit", found, "what is stored now", "streamclust refit STORE")

"""Watch a day: its figures against the days before, alarms with rows to show, and what somebody said of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import detector, drift, tallies
from streamclust.drift import Alarm, Finding
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.stages.evidence_rows import Shown, show
from streamclust.stages.labels import labels_name
from streamclust.stages.measures import Frozen, Measure, fit_measures, frozen, load_measures, write_measures
from streamclust.stages.observe import Observation, observe
from streamclust.stages.sources import holds
from streamclust.store.draft import Draft
from streamclust.store.store import Batch, Store
from streamclust.streams import NUMBERS, Figure, Reading, State, Stream, decode, encode, nothing

__all__ = ["Alarm", "acknowledge", "alarms", "watch"]


def watch(job: Job, batch: str) -> list[Alarm]:
    """Compare a labelled batch with the days before it; publish its figures, the detectors' state and its alarms.

    A batch that was watched already gives the alarms it gave then. The first batch after a fit has the fitted batches
    watched before it, whose cries nobody hears.

    Raises
    ------
    InputError : no such batch, not labelled yet, or no outliers fitted yet.
    """
    store = job.store
    for entry in store.snapshot.of_kind("day").values():
        if entry.attributes["role"] == batch:
            return _known(store, entry.attributes["alarms"])
    found = next((b for b in store.batches if b.name == batch), None)
    if found is None:
        raise InputError(store.path, f"no batch {batch!r}", "a stored batch", "streamclust info STORE lists them")
    models = frozen(store)
    wanted = fingerprint("reference", {d: asdict(m) for d, m in models.items()})
    reference = store.snapshot.find("reference", wanted) or _refer(job, models, wanted)
    measures = load_measures(store, models, reference)
    with job.journal.stage(f"watch {found.id}", found.n):
        seen = observe(job, found, models, measures)
        before, missed = _newest(store, reference)
        figures = _complete(before, seen)
        state, readings = detector.update(before, figures, job.settings.daily.days_between_false_alarms)
        raised = _alarms(job, found, models, measures, seen, readings, missed)
    name, own = f"days/{batch.split('/', 1)[1]}", store.descriptors
    draft = store.draft(name, "day", fingerprint("day", reference, batch))
    _write(draft, state)
    _write_readings(draft, state, seen, figures, readings)
    attributes = {
        "role": batch,
        "id": found.id,
        "reference": reference,
        "rows": found.n,
        "missing": [d for d in models if d in own and not found.has(d)],
        "alarms": [asdict(alarm) for alarm in raised],
    }
    store.publish(f"watch {found.id}", {name: (draft, draft.entry(attributes, {}))})
    return raised


def _refer(job: Job, models: Mapping[str, Frozen], wanted: str) -> str:
    """Watch the fitted batches once: yardsticks, and the detectors' state after them, without their evidence."""
    store = job.store
    names = {b for m in models.values() for b in store.snapshot.entries[m.projection].attributes["batches"]}
    batches = [b for b in store.batches if b.name in names]
    with job.journal.stage("watch the fitted days", sum(b.n for b in batches)):
        measures = fit_measures(job, models, batches)
        state = nothing()
        for batch in batches:
            figures = _complete(state, observe(job, batch, models, measures))
            state, _ = detector.update(state, figures)
    name = f"days/reference-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "reference", wanted)
    write_measures(draft, measures)
    _write(draft, replace(state, evidence=np.full_like(state.evidence, -np.inf)))
    attributes = {"role": "reference", "batches": [b.name for b in batches], "snapshot": store.snapshot.number}
    store.publish("watch the fitted days", {name: (draft, draft.entry(attributes, {}))})
    return name


def _newest(store: Store, reference: str) -> tuple[State, Sequence[str]]:
    """The detectors' state after the newest day under these models, and the descriptors that day lacked."""
    days = store.snapshot.of_kind("day")
    missing = next(reversed(days.values())).attributes["missing"] if days else []
    under = [name for name, entry in days.items() if entry.attributes["reference"] == reference]
    return _read(store, under[-1] if under else reference), missing


def _complete(state: State, seen: Observation) -> dict[Stream, Figure]:
    """The day's figures; a camera that sent nothing has a share of 0."""
    figures = tallies.figures(seen.tally)
    if any(s.camera for s in figures):
        silent = {s for s in state.streams if s.camera and s.figure == "share"} - figures.keys()
        figures |= {s: Figure(0.0, figures[Stream("outlier")].rows) for s in silent}
    return figures


def _alarms(
    job: Job,
    batch: Batch,
    models: Mapping[str, Frozen],
    measures: Mapping[str, Measure],
    seen: Observation,
    readings: Sequence[Reading],
    missed: Sequence[str],
) -> list[Alarm]:
    """The day's alarms without those of acknowledged causes."""
    here, own = [d for d in models if holds(job.store, batch, d)], job.store.descriptors
    found = [_missing(batch, d) for d in models if d not in here and d not in missed and d in own]
    flagged = {d: crowd.flagged for d, crowd in seen.crowds.items()}
    for finding in drift.findings(readings, here, flagged):
        shown = show(job, batch, models, measures, seen, finding)
        found.append(_alarm(job.store, batch, models, finding, shown))
    silent = {entry.attributes["cause"] for entry in job.store.snapshot.of_kind("ack").values()}
    return [alarm for alarm in found if alarm.cause not in silent]


def _missing(batch: Batch, descriptor: str) -> Alarm:
    said = f"{descriptor} is missing: none of the {batch.n:,} pictures has it."
    kind, cause = "descriptor missing", f"descriptor-missing/{descriptor}"
    return Alarm(
        f"{batch.id}/descriptor-missing-{descriptor}", kind, batch.id, descriptor, -1, "", 0, 1, said, (), cause
    )


def _alarm(store: Store, batch: Batch, models: Mapping[str, Frozen], found: Finding, shown: Shown) -> Alarm:
    lead, slug = found.lead, found.kind.replace(" of image", "").replace(" ", "-")
    said = drift.sentence(found)
    if shown.proposal:
        close = "close to one another" if shown.proposal["closeness"] <= 1 else "scattered"
        said += f" About {shown.proposal['size']:,.0f} of them could be a new cluster; they are {close}."
    s = lead.stream
    return Alarm(
        id=f"{batch.id}/{slug}",
        kind=found.kind,
        day=batch.id,
        descriptor=s.descriptor,
        cluster=s.cluster,
        camera=s.camera,
        value=lead.value,
        expected=lead.expected,
        sentence=said,
        rows=shown.rows,
        cause=f"{slug}/{_content(store, batch, models, found, shown)}",
        proposal=shown.proposal,
    )


def _content(store: Store, batch: Batch, models: Mapping[str, Frozen], found: Finding, shown: Shown) -> str:
    """What a cause is known by. Pictures are known by the fine clusters they fall into, all else by its stream.

    Under other models the cause is another one: fine clusters and a descriptor's change mean something for those only.
    """
    s = found.lead.stream
    if found.kind in {"stuck camera", "new kind of image"} and shown.rows:
        amid, parts = shown.rows[0], []
        for descriptor, model in sorted(models.items()):
            name = labels_name(model.clustering, batch.name)
            if name in store.snapshot.entries and s.descriptor in {"", descriptor}:
                fine = int(store.read(name, "fine", amid, amid + 1)[0])
                parts.append(f"{model.clustering.split('/', 1)[1]}/fine-{fine}")
        return "+".join(parts)
    under = models[s.descriptor].clustering.split("/", 1)[1] if s.descriptor in models else "all"
    parts = [under, f"cluster-{s.cluster}" if s.cluster >= 0 else "", f"camera-{s.camera}" if s.camera else ""]
    return "/".join(filter(None, [*parts, "" if found.kind != "drift" else s.figure]))


def alarms(store: Store) -> list[Alarm]:
    """Every alarm of every day, oldest first, with reason, person and time where its cause was acknowledged."""
    days = store.snapshot.of_kind("day").values()
    return _known(store, [alarm for entry in days for alarm in entry.attributes["alarms"]])


def _known(store: Store, stored: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    said = {entry.attributes["cause"]: entry.attributes for entry in store.snapshot.of_kind("ack").values()}
    found = [Alarm(**{**about, "rows": tuple(about["rows"])}) for about in stored]
    return [
        replace(a, **{key: said[a.cause][key] for key in ("reason", "who", "when")}) if a.cause in said else a
        for a in found
    ]


def acknowledge(store: Store, alarm: str, reason: str, who: str) -> Alarm:
    """Say why an alarm is no news; its cause does not cry again. Returns the alarm with the reason.

    Raises
    ------
    InputError : no such alarm, or no reason.
    """
    known = {a.id: a for a in alarms(store)}
    if alarm not in known:
        ids = ", ".join(known) or "none: nothing was cried yet"
        raise InputError(f"alarm {alarm!r}", "there is no such alarm", f"one of {ids}")
    if not reason.strip():
        raise InputError("the reason", "is empty", "some words, such as 'camera 3 was repaired'")
    cause = known[alarm].cause
    name = f"acks/{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "ack", fingerprint("ack", alarm, reason, who))
    when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    attributes = {"role": alarm, "alarm": alarm, "cause": cause, "reason": reason.strip(), "who": who, "when": when}
    store.publish(f"acknowledge {alarm}", {name: (draft, draft.entry(attributes, {}))})
    return replace(known[alarm], reason=reason.strip(), who=who, when=when)


def _write(draft: Draft, state: State) -> None:
    """A state as its streams and two arrays of all its numbers."""
    draft.write("streams", encode(state.streams))
    draft.write("state", np.stack([getattr(state, f) for f in NUMBERS], axis=1))
    draft.write("evidence", state.evidence)


def _read(store: Store, name: str) -> State:
    streams = decode(store.read(name, "streams"))
    numbers = store.read(name, "state")
    return State(streams, **dict(zip(NUMBERS, numbers.T, strict=True)), evidence=store.read(name, "evidence"))


def _write_readings(
    draft: Draft, state: State, seen: Observation, figures: Mapping[Stream, Figure], readings: Sequence[Reading]
) -> None:
    """``readings`` (S, 5): value, rows, mean of the raw values, expected value, deviation; NaN without a figure."""
    judged = {r.stream: r for r in readings}
    table: NDArray[np.float64] = np.full((len(state.streams), 5), np.nan)
    for i, s in enumerate(state.streams):
        if s in figures:
            table[i, :2] = figures[s].value, figures[s].rows
        if s in seen.tally:
            table[i, 2] = tallies.raw_mean(seen.tally, s)
        if s in judged:
            table[i, 3:] = judged[s].expected, judged[s].deviation
    draft.write("readings", table)

"""What a model says of each batch: one draft per batch, rows written by tasks, all published with the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from numpy.typing import DTypeLike

from streamclust.job import Job, fingerprint
from streamclust.stages.sources import holds
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store

NO_VALUE = -2


def labels_name(model: str, batch: str) -> str:
    """The manifest's name for what a model says of a batch."""
    return f"labels/{model.split('/', 1)[1]}/{batch.split('/', 1)[1]}"


def up_to_date(job: Job, kind: str, role: str, wanted: str, about: str = "fingerprint") -> str | None:
    """The newest entry of a role where it was made from the same inputs, so that nothing is left to do; says so.

    An older one does not count: everybody reads the newest, which other settings may have made since.
    """
    snapshot = job.store.snapshot
    found = snapshot.newest(kind, role)
    if found is None or snapshot.entries[found].attributes.get(about) != wanted:
        return None
    job.journal.note(f"{role}: up to date")
    return found


def labelled(store: Store, model: str, batch: Batch) -> bool:
    """Whether a model has labelled a batch."""
    return labels_name(model, batch.name) in store.snapshot.entries


def unlabelled(store: Store, model: str) -> list[Batch]:
    """The batches that a model has not labelled yet."""
    return [batch for batch in store.batches if not labelled(store, model, batch)]


def ready(store: Store, models: Iterable[str], batch: Batch) -> bool:
    """Whether models of descriptors have labelled a batch, each one whose descriptor it has.

    It may be on its way: another writer brought it in since, or one was killed between two models.
    """
    about = {model: store.snapshot.entries[model].attributes["descriptor"] for model in models}
    return all(labelled(store, model, batch) for model, of in about.items() if holds(store, batch, of))


class LabelWriter:
    """Arrays of one value per row, over all batches of some addresses, chunked as those addresses are."""

    def __init__(
        self, store: Store, model: str, rows: Sequence[Rows], arrays: Mapping[str, DTypeLike], wanted: str
    ) -> None:
        self.model, self._drafts = model, dict[str, Draft]()
        counts = {batch.name: batch.n for batch in store.batches}
        steps = {r.batch: len(r) for r in rows if r.start == 0}
        paths = {}
        for batch, step in steps.items():
            draft = store.draft(labels_name(model, batch), "labels", fingerprint(wanted, batch))
            self._drafts[batch] = draft
            paths[batch] = {name: draft.create(name, (counts[batch],), kind, step) for name, kind in arrays.items()}
        self.addresses = [r.with_arrays(**paths[r.batch]) for r in rows]

    def finish(self, role: str, columns: Mapping[str, str]) -> dict[str, tuple[Draft, Entry]]:
        """Drafts and entries by manifest name; ``columns`` says under which column each array is exported."""
        common = {"role": role, "model": self.model, "columns": dict(columns)}
        return {
            draft.name: (draft, draft.entry(common | {"batch": batch}, {})) for batch, draft in self._drafts.items()
        }

"""Ids of clusters that stay over refits, and the names that people give them."""

from __future__ import annotations

from typing import Literal

from streamclust.errors import InputError
from streamclust.job import fingerprint
from streamclust.stages.sources import described
from streamclust.store.store import Store

Level = Literal["label", "fine"]
LEVELS: tuple[Level, ...] = ("label", "fine")
LONGEST = 80


def cluster_ids(store: Store, model: str, level: Level = "label") -> tuple[int, ...]:
    """The stable id of each cluster of a k-means model, by the position that its label arrays hold.

    ``level`` is ``label`` for the chosen clustering, ``fine`` for the fine one. A descriptor's first model has no ids
    stored: they are the positions.
    """
    about = store.snapshot.entries[model].attributes
    k = int(about["clusters" if level == "label" else "fine_k"])
    return tuple(int(i) for i in about["ids"][level]) if "ids" in about else tuple(range(k))


def next_id(store: Store, model: str, level: Level = "label") -> int:
    """The smallest id that no cluster of the model's descriptor ever had."""
    about = store.snapshot.entries[model].attributes
    return int(about["next_ids"][level]) if "next_ids" in about else len(cluster_ids(store, model, level))


def origins(store: Store, model: str, level: Level = "label") -> list[tuple[str, ...]]:
    """By position, the batches on which a cluster's id was first fitted: what the id stands for."""
    entries = store.snapshot.entries
    about = entries[model].attributes
    if "origins" in about:
        return [tuple(about["fits"][fit]) for fit in about["origins"][level]]
    return [tuple(entries[about["parents"][0]].attributes["batches"])] * len(cluster_ids(store, model, level))


def name_cluster(store: Store, descriptor: str, cluster: int, text: str) -> str:
    """Name a cluster of the chosen clustering by its id; returns the name as it is kept. The last name given counts.

    Raises
    ------
    InputError : no such descriptor or cluster, nothing fitted yet, or a text that is no name.
    """
    if descriptor not in (known := described(store)):
        raise InputError(store.path, f"no descriptor {descriptor!r}", f"one of {', '.join(known)}")
    model = store.snapshot.newest("model", f"{descriptor}/kmeans")
    if model is None:
        raise InputError(store.path, f"{descriptor} was not clustered yet", "a fitted store", "streamclust fit STORE")
    ids = cluster_ids(store, model)
    if cluster not in ids:
        expected = f"one of {', '.join(map(str, sorted(ids)))}"
        raise InputError(f"cluster {cluster} of {descriptor}", "there is no such cluster", expected)
    text = _checked(text)
    if names(store, descriptor).get(cluster) == text:
        return text
    role = f"{descriptor}/{cluster}"
    name = f"names/{descriptor}-{cluster}-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "name", fingerprint("name", role, text))
    attributes = {"role": role, "descriptor": descriptor, "cluster": cluster, "name": text}
    store.publish(f"name {role}", {name: (draft, draft.entry(attributes, {}))})
    return text


def names(store: Store, descriptor: str) -> dict[int, str]:
    """Name by id of every cluster of a descriptor that was ever named, also of those that are no more."""
    entries = [entry.attributes for entry in store.snapshot.of_kind("name").values()]
    return {int(e["cluster"]): str(e["name"]) for e in entries if e["descriptor"] == descriptor}


def _checked(text: str) -> str:
    text = text.strip()
    if not text:
        raise InputError("the name", "is empty", "some words, such as 'rear view, dark'")
    if len(text) > LONGEST:
        raise InputError("the name", f"has {len(text)} characters", f"at most {LONGEST}")
    if not text.isprintable():
        raise InputError(f"the name {text!r}", "has characters that cannot be shown", "letters, digits, punctuation")
    return text

"""What the page of a refit says, as plain frozen data; ``refit`` lays it out."""

from __future__ import annotations

from dataclasses import dataclass

from streamclust.render.parts import Thumb


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster by its id, and the name that people gave it, if any."""

    id: int
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A cluster that rows would come under: how many, from which clusters (most rows first), and a random draw."""

    cluster: Cluster
    rows: int
    born: bool
    sources: tuple[tuple[Cluster, int], ...]
    pictures: tuple[Thumb, ...]


@dataclass(frozen=True, kw_only=True)
class DescriptorRefit:
    """What becomes of one descriptor; ``events`` are sentences. ``before`` is 0 for a descriptor's first clusters.

    ``shared`` and ``changed`` count rows with a cluster before and after, and those of them whose cluster changes;
    ``fine_changed`` counts those whose fine cluster changes.
    """

    name: str
    before: int
    after: int
    shared: int
    changed: int
    fine_changed: int
    events: tuple[str, ...]
    gains: tuple[Gain, ...]
    more: int = 0


@dataclass(frozen=True, kw_only=True)
class Refit:
    """A proposed refit, or one that was accepted; ``days`` are the ids of the batches it was fitted on."""

    store: str
    created: str
    accepted: bool
    days: tuple[str, ...]
    rows: int
    descriptors: tuple[DescriptorRefit, ...]
    command: str
    version: str

"""Names for what changed on a day: which cause is behind its cries, and what an alarm says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from streamclust.detector import FEW_DAYS
from streamclust.streams import Reading, Stream
from streamclust.tallies import RANKED

NEARLY_ALL = 0.7  # share of rows that no cluster holds once a network was replaced,
FAR_OFF = 0.35  # or so far the mean quantile of a measure has moved
SHRINKS = 1.5  # deviations of a cluster's share that explain why the rows left in it lie elsewhere
TAKES_PART = 3.0  # deviations from which strange rows explain what else changed
STRANGE = ("unheld", "crowded")
MASS = 0.25  # share of a day's pictures in a crowd from which a stuck camera is thought of
TITLES = {
    "burst": "near-identical pictures",
    "outlier": "flagged pictures",
    "invalid": "rows that hold no finite numbers",
    "unheld": "pictures that no cluster holds",
    "crowded": "pictures close to one another where hardly any was fitted",
    "near_duplicates": "pictures with a near-duplicate among the fitted ones",
    "share": "share of the pictures",
    "distance": "mean distance to the centre, as a quantile of the fitted rows,",
    "error": "mean reconstruction error, as a quantile of the fitted rows,",
    "norm": "mean norm, as a quantile of the fitted rows,",
}
ALIKE = {
    "burst": "near-identical to one another: a camera may be stuck",
    "crowded": "close to one another, unlike any fitted ones, and mostly flagged: a camera may be stuck or show "
    "nothing of use, unless a new kind came all at once",
}


@dataclass(frozen=True)
class Alarm:
    """Something that changed on ``day``; ``rows`` are up to 12 rows of the batch to show.

    ``value`` and ``expected`` are means of numbers from 0 to 1: shares, or quantiles of the fitted rows. ``proposal``
    is a new cluster's medoid (a row of the batch), size in rows and closeness, where one is proposed. ``reason``,
    ``who`` and ``when`` (ISO 8601, UTC) are those of an acknowledgement.
    """

    id: str
    kind: str
    day: str
    descriptor: str
    cluster: int
    camera: str
    value: float
    expected: float
    sentence: str
    rows: tuple[int, ...]
    cause: str
    proposal: Mapping[str, float] | None = None
    reason: str | None = None
    who: str | None = None
    when: str | None = None


@dataclass(frozen=True)
class Finding:
    """A cause of one day: its kind, the stream that says so most clearly, and all that moved with it."""

    kind: str
    lead: Reading
    others: tuple[Reading, ...]


def findings(readings: Sequence[Reading], descriptors: Sequence[str], flagged: Mapping[str, float]) -> list[Finding]:
    """The causes behind a day's cries: bursts, and at most one other, since one cause shows in many streams.

    ``flagged`` is the share of each descriptor's crowded rows that the outlier rule flags: a crowd of pictures that
    show nothing is a camera's fault rather than a new kind.
    """
    cried = [r for r in readings if r.cried]
    found = [Finding("stuck camera", r, ()) for r in cried if r.stream.figure == "burst"]
    others = [r for r in cried if r.stream.figure != "burst"]
    if not others:
        return found
    replaced = [d for d in descriptors if _replaced(d, readings)]
    strange = [r for r in readings if r.stream.figure in STRANGE and (r.cried or r.deviation >= TAKES_PART)]
    if replaced and (len(replaced) < len(descriptors) or len(descriptors) == 1):
        lead = _clearest([r for r in others if r.stream.descriptor in replaced] or others)
        kind = "descriptor changed"
    elif strange:
        crowds = [r for r in strange if r.stream.figure == "crowded" and r.value >= MASS]
        empty = [r for r in crowds if flagged[r.stream.descriptor] > 0.5 and not found]
        lead, kind = _clearest(empty or strange), "stuck camera" if empty else "new kind of image"
    else:
        lead, kind = _of_cluster(_clearest(others), readings)
    moved = tuple(sorted((r for r in others if r is not lead), key=lambda r: -r.strength))
    return [*found, Finding(kind, lead, moved)]


def _clearest(readings: Iterable[Reading]) -> Reading:
    """Of a whole descriptor rather than of a part of it, then by evidence."""

    def clarity(r: Reading) -> tuple[bool, float, float, Stream]:
        return r.stream.cluster < 0 and not r.stream.camera, r.strength, abs(r.deviation), r.stream

    return max(readings, key=clarity)


def _of_cluster(lead: Reading, readings: Sequence[Reading]) -> tuple[Reading, str]:
    """What became of the cluster that a reading is about, and its share, which says so; drift where it kept that."""
    if lead.stream.cluster >= 0:
        share = replace(lead.stream, figure="share")
        for r in readings:
            if r.stream == share and (r is lead or abs(r.deviation) >= SHRINKS):
                return r, "cluster growing" if r.deviation > 0 else "cluster dying"
    return lead, "drift"


def _replaced(descriptor: str, readings: Sequence[Reading]) -> bool:
    """Whether nearly all rows of a descriptor moved at once."""
    whole = {Stream(figure, descriptor) for figure in ("unheld", *RANKED)}
    moved = [r for r in readings if r.stream in whole and abs(r.deviation) >= TAKES_PART]
    return any(
        r.value >= NEARLY_ALL if r.stream.figure == "unheld" else abs(r.value - r.expected) >= FAR_OFF for r in moved
    )


def place(stream: Stream) -> str:
    """Where a stream is, in words."""
    parts = [stream.descriptor, f"cluster {stream.cluster}" if stream.cluster >= 0 else ""]
    return ", ".join(filter(None, [*parts, f"camera {stream.camera}" if stream.camera else ""])) or "all pictures"


def sentence(found: Finding) -> str:
    """A finding in plain words, with what it rests on."""
    lead, where = found.lead, place(found.lead.stream)
    change = f"{lead.value:.1%}, expected {lead.expected:.1%}"
    said = {
        "stuck camera": f"{lead.value:.1%} of the pictures are {ALIKE.get(lead.stream.figure)}.",
        "new kind of image": f"{where}: {TITLES[lead.stream.figure]}: {change}.",
        "cluster growing": f"{where} grows: {change} of the pictures.",
        "cluster dying": f"{where} dies: {change} of the pictures.",
        "descriptor changed": f"{where}: nearly all pictures moved at once, as after a change of the network "
        f"({TITLES[lead.stream.figure]} {change}); fit anew when some days of it are in.",
    }.get(found.kind, f"{where}: {TITLES[lead.stream.figure]} {change}.")
    if found.others:
        shown = "; ".join(f"{place(r.stream)} {TITLES[r.stream.figure].rstrip(',')}" for r in found.others[:3])
        said += f" With it changed: {shown}{' and more' if len(found.others) > 3 else ''}."
    if lead.early:
        said += f" Fewer than {FEW_DAYS} days were seen since the start or the last change: only large effects count."
    return said

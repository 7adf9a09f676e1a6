"""What a day's page and the page over all days say, as plain frozen data; ``day`` lays them out."""

from __future__ import annotations

from dataclasses import dataclass

from streamclust.render.parts import Figure, Outlier, Thumb


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """Who looked at an alarm, on which day (ISO 8601, UTC), and what they found."""

    by: str
    on: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A new cluster that an alarm proposes: how many of the day's images it would hold, and the one amid them."""

    rows: int
    medoid: Thumb


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One alarm. ``subject`` says what it concerns (descriptor, cluster, camera), ``pictures`` are some that show it.

    ``value`` and ``expected`` are the same figure today and as the days before let one expect, both from 0 to 1.
    ``acknowledged`` is None while it is open, and ``command`` is the line that acknowledges it.
    """

    id: str
    kind: str
    sentence: str
    command: str
    subject: str = ""
    value: float | None = None
    expected: float | None = None
    pictures: tuple[Thumb, ...] = ()
    proposal: Proposal | None = None
    acknowledged: Acknowledgement | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterShare:
    """One cluster's rows today, and the shares (0..1) of the rows that have a cluster: today and in the reference.

    ``typical`` is today's image nearest to the centre, None where there is none.
    """

    id: int
    rows: int
    share: float
    reference: float
    name: str = ""
    typical: Thumb | None = None
    alarmed: bool = False


@dataclass(frozen=True, kw_only=True)
class DescriptorDay:
    """One descriptor on one day: ``rows`` have a cluster; ``clusters`` are the shown ones, of ``k``."""

    name: str
    rows: int
    reference_rows: int
    k: int
    clusters: tuple[ClusterShare, ...]
    map: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera's images today, and how many of them are flagged."""

    name: str
    rows: int
    flagged: int
    alarmed: bool = False


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """The cameras that a metadata column names, most images first; ``total`` counts those not shown too."""

    column: str
    cameras: tuple[Camera, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class Day:
    """One day's page. ``flagged`` of ``judged`` rows are outliers; ``budget`` is the reference's rate.

    ``missing`` says in whole sentences what did not come, ``notes`` what a reader must know to judge the figures, and
    ``older_open`` is how many alarms of earlier days nobody has acknowledged.
    """

    name: str
    store: str
    created: str
    images: int
    judged: int = 0
    flagged: int = 0
    budget: float | None = None
    threshold: float | None = None
    alarms: tuple[Alarm, ...] = ()
    strangest: tuple[Outlier, ...] = ()
    descriptors: tuple[DescriptorDay, ...] = ()
    cameras: Cameras | None = None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    older_open: int = 0
    previous: tuple[str, str] | None = None
    """Name and page, relative to this one."""
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class DayAlarm:
    """An alarm in one line of the page over all days."""

    id: str
    kind: str
    sentence: str
    acknowledged: Acknowledgement | None = None


@dataclass(frozen=True, kw_only=True)
class DayRow:
    """One day in one line. ``page`` is its page, relative; empty where there is none. ``missing`` is short words.

    ``judged`` are the rows that no burst of near-identical images holds, of which ``flagged`` are outliers.
    """

    name: str
    images: int
    judged: int
    flagged: int
    page: str = ""
    alarms: tuple[DayAlarm, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def rate(self) -> float | None:
        """The share of judged rows that are flagged."""
        return self.flagged / self.judged if self.judged else None


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Cluster shares of one descriptor over the days, oldest first.

    clusters : (id, name) of each column. shares : a row per day, None on days without it; each row adds up to 1.
    reference : the shares in the reference.
    """

    descriptor: str
    clusters: tuple[tuple[int, str], ...]
    shares: tuple[tuple[float, ...] | None, ...]
    reference: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Days:
    """The page over all days; ``days`` are oldest first."""

    store: str
    created: str
    days: tuple[DayRow, ...]
    budget: float | None = None
    shares: tuple[Shares, ...] = ()
    command: str = ""
    """What acknowledges an alarm, with ID and TEXT to fill in."""
    version: str = ""

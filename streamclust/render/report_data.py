"""What a report says, as plain frozen data: the caller fills this tree and ``report.write_report`` only lays it out."""

from __future__ import annotations

from dataclasses import dataclass

from streamclust.render.parts import Figure, Outlier, Section, Thumb


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch that came in; ``note`` says anything special about it."""

    name: str
    rows: int
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DescriptorInput:
    """One descriptor as it came in: its width, stored type, and how many of its rows are finite."""

    name: str
    dims: int
    dtype: str
    rows: int
    valid_rows: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """One value of a metadata column, e.g. one camera: its rows and how many of them were flagged."""

    value: str
    rows: int
    outliers: int


@dataclass(frozen=True, kw_only=True)
class GroupBy:
    """The groups of one metadata column; ``total`` is the number of distinct values when only some are listed."""

    column: str
    groups: tuple[Group, ...]
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """What came in. ``pictures`` is how many rows have a readable picture, 0 when none were given."""

    rows: int
    batches: tuple[Batch, ...]
    descriptors: tuple[DescriptorInput, ...]
    pictures: int = 0
    missing_pictures: int = 0
    metadata_columns: tuple[str, ...] = ()
    group_bys: tuple[GroupBy, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One cluster and its three strips of pictures (empty without pictures).

    ``davies_bouldin`` is this cluster's own worst ratio, lower is better separated; ``mean_distance`` is the mean
    distance of its rows to its centre.
    """

    id: int
    size: int
    share: float
    name: str = ""
    davies_bouldin: float | None = None
    mean_distance: float | None = None
    nearest: tuple[Thumb, ...] = ()
    random: tuple[Thumb, ...] = ()
    farthest: tuple[Thumb, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FineCluster:
    """One cluster of the fine clustering, shown by its medoid."""

    id: int
    size: int
    medoid: Thumb
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Fine:
    """The fine clustering: how many clusters in all, and their medoids, largest first."""

    k: int
    clusters: tuple[FineCluster, ...]
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """A clustering of the same rows, in one line. ``agreement`` is its adjusted Rand index with k-means.

    ``k_reason`` says why it has k clusters, ``k_curves`` shows what it says of every k. ``stability`` is how far halves
    of the sample agree, with an interval, ``seconds`` what fitting took in this run, ``rank`` the mean of its ranks.
    """

    name: str
    k: int
    k_reason: str = ""
    k_curves: Figure | None = None
    calinski_harabasz: float | None = None
    davies_bouldin: float | None = None
    stability: tuple[float, float, float] | None = None
    seconds: float | None = None
    rank: float | None = None
    agreement: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What one density method calls noise. ``agreement`` (0..1) is between its subsamples.

    ``reliability`` is one of reliable, fair, unreliable.
    """

    method: str
    share: float
    clusters: int
    agreement: float | None
    reliability: str
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class DescriptorReport:
    """Everything about one descriptor. ``variance`` is the share (0..1) that ``components`` keep of ``dims``."""

    name: str
    dims: int
    components: int
    variance: float
    k: int
    k_reason: str
    clusters: tuple[Cluster, ...]
    scaling: str = ""
    calinski_harabasz: float | None = None
    davies_bouldin: float | None = None
    k_curves: Figure | None = None
    variance_curve: Figure | None = None
    sizes: Figure | None = None
    algorithms: tuple[Algorithm, ...] = ()
    tree: Figure | None = None
    fine: Fine | None = None
    maps: tuple[Figure, ...] = ()
    map_3d: str = ""
    """HTML of ``plots.map3d_html``; becomes a page of its own beside the report. Empty: none."""
    noise: tuple[Noise, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the descriptors' clusterings agree, as heat maps and one sentence; and all of them at every k."""

    sentence: str
    figures: tuple[Figure, ...]
    every_k: Section | None = None


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One budget: ``rows`` looked at, score from ``threshold`` up, and the share of true outliers where audited."""

    budget: float
    rows: int
    threshold: float
    precision: float | None = None
    audited_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class InvalidRow:
    """A row that could not be used: NaN or infinite values in that descriptor."""

    path: str
    batch: str
    descriptor: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Outliers:
    """Outliers of all descriptors together. ``budget`` is a share (0..1) of the rows.

    ``invalid_total`` counts the invalid rows in all, of which ``invalid`` may list only the first.
    """

    scored: int
    flagged: int
    budget: float
    threshold: float
    top: tuple[Outlier, ...]
    histogram: Figure | None = None
    weights: tuple[tuple[str, float], ...] = ()
    precision: tuple[Precision, ...] = ()
    invalid: tuple[InvalidRow, ...] = ()
    invalid_total: int = 0
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Time and memory of one stage; bytes, and peak memory of the process tree. None where it was not measured."""

    stage: str
    seconds: float
    rows: int | None = None
    peak_pss: int | None = None
    bytes_read: int | None = None
    bytes_written: int | None = None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """The whole report. ``created`` is the caller's own words for when, so that the same data give the same bytes."""

    title: str
    store: str
    case: str
    created: str
    incoming: Incoming
    descriptors: tuple[DescriptorReport, ...]
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    agreement: Agreement | None = None
    outliers: Outliers | None = None
    sections: tuple[Section, ...] = ()
    stages: tuple[StageCost, ...] = ()
    machine: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    version: str = ""

"""A realistic report to render: real photos of vehicles where they are present, drawn ones elsewhere."""

from __future__ import annotations

import io
import zipfile
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from streamclust.render import density, plots
from streamclust.render.agreement_chart import Block, agreement_chart
from streamclust.render.contact_sheets import thumbnail
from streamclust.render.k_curves import Curve, k_curves
from streamclust.render.parts import Figure, Outlier, Section, Table, Thumb
from streamclust.render.report_data import (
    Agreement,
    Algorithm,
    Batch,
    Cluster,
    DescriptorInput,
    DescriptorReport,
    Fine,
    FineCluster,
    Group,
    GroupBy,
    Incoming,
    InvalidRow,
    Noise,
    Outliers,
    Precision,
    ReportData,
    StageCost,
)
from tests.conftest import SHARED_DATA

HOSTILE = "cam/<script>alert('x')</script>&\"é 1.jpg"
NAMES = ("white van", "red saloon, rear view", "grey SUV, left", "bus", "black saloon, left", "truck at night", "")


@cache
def photos(count: int = 260) -> tuple[tuple[str, bytes], ...]:
    """(path, JPEG) pairs."""
    archive = SHARED_DATA / "vehicles" / "base" / "row_data" / "images.zip"
    if not archive.exists():
        return tuple((f"cam/{i:05}.jpg", _drawn(i)) for i in range(count))
    with zipfile.ZipFile(archive) as source:
        names = sorted(source.namelist())
        picked = [names[i] for i in np.linspace(0, len(names) - 1, count).astype(int)]
        return tuple((name, thumbnail(Image.open(io.BytesIO(source.read(name))))) for name in picked)


def _drawn(i: int) -> bytes:
    rng = np.random.default_rng(i)
    image = Image.new("RGB", (160, 110 + i % 40), tuple(int(v) for v in rng.integers(90, 200, 3)))
    ImageDraw.Draw(image).rounded_rectangle((20, 30, 140, 90), 14, fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
    return thumbnail(image)


def blobs(n: int = 6000, k: int = 14, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) points in k uneven blobs and their labels, the largest blob first."""
    rng = np.random.default_rng(seed)
    weights = np.sort(rng.dirichlet(np.full(k, 2.0)))[::-1]
    labels = rng.choice(k, n, p=weights)
    points = rng.normal(0, 30, (k, 2))[labels] + rng.normal(size=(n, 2)) * rng.uniform(2, 6, (k, 2))[labels]
    return points, labels


def count_grid(points: np.ndarray, cells: int, extent: density.Extent) -> np.ndarray:
    """(cells, cells) uint32 counts, row 0 the lowest y."""
    bounds = [[extent[2], extent[3]], [extent[0], extent[1]]]
    return np.histogram2d(points[:, 1], points[:, 0], cells, bounds)[0].astype(np.uint32)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def make_descriptor(name: str, seed: int, *, pictures: bool = True, size: int = 2000, k: int = 14) -> DescriptorReport:
    """One descriptor with every part filled."""
    points, labels = blobs(k=k, seed=seed)
    sizes = np.bincount(labels, minlength=k)
    ks = [2, 3, 4, 6, 8, 10, 14, 20, 30]
    panels = [
        Curve("Calinski-Harabasz", "higher is better", [900 / v**0.4 for v in ks], plots.BLUE, "high"),
        Curve("Davies-Bouldin", "lower is better", [1.4 + v / 30 for v in ks], plots.VERMILION, "low"),
        Curve("Inertia", "sum of squared distances", [4e5 / v**0.3 for v in ks], plots.GREEN),
    ]
    curves = k_curves(ks, panels, chosen=14)
    ratio = np.exp(-np.arange(128) / 20)
    return DescriptorReport(
        name=name,
        dims=512,
        components=46,
        variance=0.9013,
        scaling="standard scaling",
        k=k,
        k_reason=f"k = {k}: the largest k whose Davies-Bouldin score is within 5% of the best beyond k = 4.",
        calinski_harabasz=412.7,
        davies_bouldin=1.93,
        clusters=tuple(_cluster(c, int(sizes[c]), len(points), seed, pictures=pictures) for c in range(k)),
        k_curves=Figure(title="Scores against k", image=curves, caption="The ring marks the chosen k."),
        variance_curve=Figure(title="Variance kept", image=plots.variance_curve(ratio / ratio.sum(), 46)),
        sizes=Figure(title="Cluster sizes", image=plots.cluster_sizes(sizes, range(len(sizes)))),
        algorithms=(
            Algorithm(name="k-means", k=k, calinski_harabasz=401.0, davies_bouldin=1.9, rank=1.25, seconds=64.2,
                      stability=(0.93, 0.88, 0.97), note="every k from 2 to 20, and the fine clustering"),
            Algorithm(name="Gaussian mixture", k=k, calinski_harabasz=388.0, davies_bouldin=2.1, agreement=0.8, rank=2),
            Algorithm(name="Ward on micro-clusters", k=k, calinski_harabasz=371.0, davies_bouldin=2.2, rank=2.75),
        ),
        fine=_fine(seed, pictures=pictures),
        maps=make_maps(name, points, labels, k, size),
        map_3d=plots.map3d_html(np.c_[points, points.prod(1) / 40][:500], labels[:500], ["</script><b>x"] * k),
        noise=(
            Noise(method="HDBSCAN", share=0.61, clusters=9, agreement=0.84, reliability="unreliable",
                  sentence="Subsamples disagree on one row in six."),
            Noise(method="OPTICS", share=0.07, clusters=4, agreement=0.98, reliability="reliable"),
        ),
    )  # fmt: skip


def _thumbs(seed: int, count: int, caption: str) -> tuple[Thumb, ...]:
    rng = np.random.default_rng(seed)
    picked = [photos()[i] for i in rng.integers(0, len(photos()), count)]
    return tuple(Thumb(path=path, image=jpeg, caption=caption) for path, jpeg in picked)


def _cluster(c: int, size: int, total: int, seed: int, *, pictures: bool) -> Cluster:
    strips = [_thumbs(seed * 999 + 3 * c + i, 8, f"cluster {c}") if pictures else () for i in range(3)]
    if pictures:
        strips[2] = (*strips[2][:-1], Thumb(path=HOSTILE, problem="broken picture"))
    return Cluster(
        id=c, size=size, share=size / total, name=NAMES[c % len(NAMES)], davies_bouldin=1.5 + c / 10,
        mean_distance=11.3 + c, nearest=strips[0], random=strips[1], farthest=strips[2],
    )  # fmt: skip


def _fine(seed: int, *, pictures: bool, k: int = 121) -> Fine:
    thumbs = _thumbs(seed + 5, k, "") if pictures else tuple(Thumb(path=f"{i}.jpg") for i in range(k))
    return Fine(k=k, clusters=tuple(FineCluster(id=i, size=220 - i, medoid=t) for i, t in enumerate(thumbs)))


def make_maps(name: str, points: np.ndarray, labels: np.ndarray, k: int, size: int) -> tuple[Figure, ...]:
    """The three maps of a descriptor."""
    extent = (float(points.min()), float(points.max()), float(points.min()), float(points.max()))
    cells = max(size // 2, 64)
    grids = np.stack([count_grid(points[labels == c], cells, extent) for c in range(k)], axis=2)
    names = [NAMES[c % len(NAMES)] for c in range(k)]
    flagged = count_grid(points[::97], cells, extent)
    images = {
        "density": density.density_image(grids.sum(2, dtype=np.uint32), extent, f"{name}: density", size=size),
        "clusters": density.cluster_image(grids, extent, list(range(k)), names, f"{name}: clusters", size=size),
        "outliers": density.outlier_image(
            grids.sum(2, dtype=np.uint32), flagged, extent, f"{name}: outliers", size=size
        ),
    }
    words = {
        "density": "Brighter is denser. Islands are kinds of pictures; bright cores are the usual ones.",
        "clusters": "Each colour is a cluster, numbered at its densest place.",
        "outliers": "Orange marks the flagged rows. Many lie between islands; a knot of them is a clump of junk.",
    }
    return tuple(
        Figure(title=kind.capitalize(), image=png(image), caption=words[kind], file_name=f"{name}-{kind}.png")
        for kind, image in images.items()
    )


def make_outliers(*, pictures: bool = True) -> Outliers:
    """Forty scored rows, one of them hostile."""
    counts, edges = np.histogram(np.random.default_rng(0).gamma(3, 1.2, 6000), 60)
    reasons = ("few neighbours in osnet (density)", "far from its cluster in vdc_mid", "near-duplicate of 119 rows")
    rows = [photos()[i] if pictures else (f"cam/{i}.jpg", None) for i in range(40)]
    rows[3] = (HOSTILE, None)
    top = tuple(
        Outlier(rank=i + 1, thumb=Thumb(path=path, image=jpeg), score=19.4 - i / 4, reason=reasons[i % 3],
                batch="base", detail=(("camera", "north-3"),))
        for i, (path, jpeg) in enumerate(rows)
    )  # fmt: skip
    histogram = Figure(
        title="Scores", image=plots.score_histogram(counts, edges, 10.0), caption="Orange: at or above the threshold."
    )
    return Outliers(
        scored=6078, flagged=122, budget=0.02, threshold=10.0, top=top, histogram=histogram,
        weights=(("osnet", 0.31), ("vdc", 0.08), ("vdc_mid", 0.61)),
        precision=tuple(Precision(budget=b, rows=round(6078 * b), threshold=12 - 100 * b) for b in (0.005, 0.01, 0.02)),
        invalid=(InvalidRow(path=HOSTILE, batch="base", descriptor="vdc", problem="NaN in 3 of 128 values"),),
        invalid_total=2,
    )  # fmt: skip


def make_report(names: tuple[str, ...] = ("osnet", "vdc", "vdc_mid"), *, pictures: bool = True, size: int = 2000,
                k: int = 14) -> ReportData:  # fmt: skip
    """The whole report. ``size`` is that of its maps."""
    ari = np.eye(len(names)) + 0.31 * (1 - np.eye(len(names)))
    heat = (
        Figure(title="Clusters", image=plots.agreement_heatmap(names, ari, "Adjusted Rand index"), caption="ARI."),
        Figure(
            title="Clusters", image=plots.agreement_heatmap(names, ari**0.5, "Adjusted mutual inf."), caption="AMI."
        ),
    )
    cameras = tuple(Group(value=f"north-{i}", rows=2000 - 300 * i, outliers=20 + 9 * i) for i in range(5))
    incoming = Incoming(
        rows=6080,
        batches=(Batch(name="base", rows=6080, note="first import"),),
        descriptors=tuple(
            DescriptorInput(name=n, dims=512 >> i, dtype="float32", rows=6080, valid_rows=6078)
            for i, n in enumerate(names)
        ),
        pictures=6079 if pictures else 0,
        missing_pictures=1 if pictures else 0,
        metadata_columns=("camera", "time"),
        group_bys=(GroupBy(column="camera", groups=cameras, total=9),),
    )
    blocks = [Block(name, (2, 3, 4), 3) for name in names]
    chart = agreement_chart(blocks, np.kron(ari, np.full((3, 3), 0.9)))
    pairs = Table(
        title="Best", columns=("one", "Rand"), rows=(("osnet", 0.31),), file_name="agreement.csv", content=b"a\n"
    )
    every_k = Section(title="At every k", figures=(Figure(title="At every k", image=chart),), tables=(pairs,))
    drift = Table(title="Per day", columns=("day", "images", "alarm"), rows=(("2026-01-05", 243, "stuck camera"),))
    return ReportData(
        title="Vehicle photos: first import", store="cars.store", case="/data/vehicles/base", created="2 January 2026",
        incoming=incoming,
        descriptors=tuple(
            make_descriptor(n, i, pictures=pictures, size=size, k=k) for i, n in enumerate(names)
        ),
        findings=(
            "osnet sorts the photos into 14 clusters, mostly by view and body type; vdc_mid by colour.",
            "122 of 6,078 rows (2.0%) score above the outlier threshold; camera north-4 stands out.",
            "HDBSCAN calls 61% of rows noise, so its labels are not used for naming.",
        ),
        warnings=("2 rows have NaN values and were left out.", f"1 picture cannot be read: {HOSTILE}"),
        agreement=Agreement(sentence="osnet and vdc_mid agree weakly: they see different things.", figures=heat,
                            every_k=every_k) if len(names) > 1 else None,
        outliers=make_outliers(pictures=pictures),
        sections=(Section(title="Days so far", paragraphs=("One alarm in ten days.",), tables=(drift,)),),
        stages=(
            StageCost(stage="ingest", seconds=1.94, rows=6080, peak_pss=412 * 10**6, bytes_read=18 * 10**6,
                      bytes_written=17 * 10**6),
            StageCost(stage="cluster", seconds=64.2, rows=6080, peak_pss=655 * 10**6),
        ),
        machine="2 cores, 24 GB",
        settings=(("memory", "4 GB"), ("seed", "0"), ("budget", "0.02")),
        version="0.1.0",
    )  # fmt: skip

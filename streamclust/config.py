"""Settings: defaults, TOML files and command-line flags, validated in one place."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from streamclust.errors import InputError

Scaler = Literal["standard", "min-max", "max-abs", "robust", "none"]
MIX, AT = "mix", "@"  # names of what is made of descriptors: their mix, and one under a further scaler, osnet@robust
Further = Literal["mixture", "agglomerative"]
AsMany = Literal["kmeans", "own"]
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IngestSettings(_Section):
    """How a case is read."""

    sample_rows: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000
    path_encoding: str = "utf-8"
    parts: dict[str, str] = {}  # patterns of the files that are one descriptor in parts, by its name


class ReduceSettings(_Section):
    """How a descriptor is scaled and reduced."""

    scaler: Scaler | Literal["auto"] = "standard"
    also: tuple[Scaler, ...] = ()  # each makes every descriptor one more, under that scaler
    variance: Annotated[float, Field(gt=0, le=1)] = 0.90
    components: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _of_several(self) -> Self:
        if len({self.scaler, *self.also}) <= len(self.also):
            msg = f"also = {list(self.also)} names a scaler twice, or the one that is scaler"
            raise ValueError(msg)
        return self


class MixSettings(_Section):
    """Descriptors joined to one more, called mix; each with the same variance, but for its weight."""

    of: tuple[str, ...] = ()
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}

    @model_validator(mode="after")
    def _of_several(self) -> Self:
        if len(self.of) == 1 or len(set(self.of)) < len(self.of):
            msg = f"of = {list(self.of)} is not two different descriptors or more"
            raise ValueError(msg)
        if unknown := sorted(set(self.weights) - set(self.of)):
            msg = f"weights names {unknown[0]!r}, which is not in of"
            raise ValueError(msg)
        return self


class ClusterSettings(_Section):
    """Which k are tried, and how hard."""

    k_min: Annotated[int, Field(ge=1)] = 2
    k_max: Annotated[int, Field(ge=1, le=10_000)] = 20
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None
    fine_k: Annotated[int, Field(ge=1, le=10_000)] | None = None
    seeds: Annotated[int, Field(ge=1, le=32)] = 3
    restarts: Annotated[int, Field(ge=1, le=100)] = 12
    passes: Annotated[int, Field(ge=1, le=300)] = 6
    halves: Annotated[int, Field(ge=0, le=50)] = 6  # of the sample, clustered apart to see how stable each k is

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.k_min > self.k_max:
            msg = f"k_min = {self.k_min} is above k_max = {self.k_max}"
            raise ValueError(msg)
        return self

    @property
    def ks(self) -> tuple[int, ...]:
        """Every k of the sweep; a chosen ``k`` outside the range joins it."""
        ks = set(range(self.k_min, self.k_max + 1))
        return tuple(sorted(ks | ({self.k} if self.k else set())))


class AlgorithmSettings(_Section):
    """What is clustered by beside k-means, and into how many clusters: as many, or as suit it best, or a number."""

    also: tuple[Further, ...] = ()
    k: AsMany | Annotated[int, Field(ge=1)] = "kmeans"
    consensus: bool = False  # of all descriptors and algorithms
    covariance: Literal["auto", "full", "tied", "diag", "spherical"] = "auto"
    em_passes: Annotated[int, Field(ge=1, le=1_000)] = 30
    linkage: Literal["ward", "average", "complete"] = "ward"
    merged_rows: Annotated[int, Field(ge=0, le=20_000)] = 10_000  # one by one; of more rows micro-clusters are
    micro_clusters: Annotated[int, Field(ge=2, le=10_000)] = 1_000

    @field_validator("k", mode="before")
    @classmethod
    def _words_or_a_number(cls, value: Any) -> Any:
        if value in get_args(AsMany) or (type(value) is int and value >= 1):
            return value
        msg = f'{value!r} is neither "kmeans" (as many as k-means has) nor "own" (as suit it best) nor a number above 0'
        raise ValueError(msg)


class OutlierSettings(_Section):
    """How strangeness is measured and how many rows may be flagged."""

    budget: Annotated[float, Field(gt=0, lt=1)] = 0.01
    subsamples: Annotated[int, Field(ge=1, le=100)] = 10
    subsample_rows: Annotated[int, Field(ge=10, le=10_000)] = 500
    noise_rows: Annotated[int, Field(ge=50, le=50_000)] = 5_000
    noise_votes: Annotated[int, Field(ge=1, le=15)] = 3
    shown: Annotated[int, Field(ge=1, le=1_000)] = 48


class MapSettings(_Section):
    """The two-dimensional map."""

    rows: Annotated[int, Field(ge=100, le=100_000)] = 6_000
    perplexity: Annotated[float, Field(gt=1, le=500)] = 30.0


class RenderSettings(_Section):
    """Pictures and the report."""

    size: Annotated[int, Field(ge=2_000, le=20_000)] = 2_000
    thumbnail: Annotated[int, Field(ge=32, le=512)] = 160
    group_by: str | None = None


class DailySettings(_Section):
    """What a day's work takes for granted."""

    settle: Annotated[float, Field(ge=0, le=86_400)] = 60.0  # seconds without a change after which a folder is complete
    days_between_false_alarms: Annotated[float, Field(ge=1, le=100_000)] = 365.0  # over all streams together


class Settings(_Section):
    """Everything a run can be told; each section stands under its name in a TOML file."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    memory: str | None = None
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    scheduler: str | None = None
    ingest: IngestSettings = IngestSettings()
    reduce: ReduceSettings = ReduceSettings()
    mix: MixSettings = MixSettings()
    cluster: ClusterSettings = ClusterSettings()
    algorithms: AlgorithmSettings = AlgorithmSettings()
    outliers: OutlierSettings = OutlierSettings()
    map: MapSettings = MapSettings()
    render: RenderSettings = RenderSettings()
    daily: DailySettings = DailySettings()

    @field_validator("memory")
    @classmethod
    def _memory_reads_as_bytes(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bytes(value)
        return value

    @model_validator(mode="after")
    def _k_is_tried(self) -> Self:
        k, cluster = self.algorithms.k, self.cluster
        if isinstance(k, int) and k not in cluster.ks:
            msg = (
                f"algorithms.k = {k} is not tried by k-means, where it would start; "
                f"expected {cluster.k_min} to {cluster.k_max}, which cluster.k_min and cluster.k_max set"
            )
            raise ValueError(msg)
        return self

    @property
    def memory_bytes(self) -> int | None:
        """The budget of the whole job in bytes; ``None`` without one."""
        return None if self.memory is None else parse_bytes(self.memory)


def parse_bytes(text: str) -> int:
    """``"4GB"`` -> 4_000_000_000. Units B, KB, MB, GB, TB and KiB, MiB, GiB, TiB; raises ValueError."""
    number = text.strip().rstrip("BKMGTIbkmgti ")
    unit = text.strip()[len(number) :].strip().upper()
    try:
        size = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        size = 0.0
    if not 1 <= size < 2**63:
        msg = f"{text!r} is not an amount of memory; give a number and a unit, such as 4GB or 512MiB"
        raise ValueError(msg)
    return int(size)


def load_settings(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Settings from a TOML file, then ``overrides`` by dotted key (``{"cluster.k": 7}``; ``None`` means not given).

    The command line overrides by a flag of the key's last name, which errors name.

    Raises
    ------
    InputError : the file is missing or no TOML; a key is unknown; a value has the wrong type or is impossible.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        if path.exists() and not path.is_file():  # of which a pipe may have no writer, and a device no end
            raise InputError(path, "is no regular file", "a TOML file", hint="check --config")
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(path, "no such settings file", hint="check --config") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(path, f"not a readable TOML file ({error})") from None
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key, value in given.items():
        _set(tree, key.split("."), value, path)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, path, given) from None


def _set(tree: dict[str, Any], keys: list[str], value: Any, path: Path | None) -> None:
    for key in keys[:-1]:
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            raise InputError(f"setting {key} in {path}", f"{branch!r}", f"a section [{key}]")
        tree = branch
    tree[keys[-1]] = value


def _explain(error: ValidationError, path: Path | None, given: Collection[str]) -> InputError:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    where = f"setting {name}" if name else "settings"
    if name in given:
        where += f" (--{name.rpartition('.')[2].replace('_', '-')})"
    elif path:
        where += f" in {path}"
    if first["type"] == "extra_forbidden":
        section: Any = Settings
        for key in first["loc"][:-1]:
            section = section.model_fields[key].annotation
        return InputError(where, "unknown key", f"one of {', '.join(sorted(section.model_fields))}")
    message = first["msg"].removeprefix("Value error, ")
    return InputError(where, f"{first['input']!r}: {message}" if first["type"] != "value_error" else message)

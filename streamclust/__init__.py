"""Image descriptors to clusters, labels, outliers and density images, out of core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
_HOMES = {
    "open": ("streamclust.store.store", "open_store"),
    "run": ("streamclust.pipeline", "run"),
    "plan": ("streamclust.budget", "plan_for"),
    "export": ("streamclust.exporting", "export"),
    "Store": ("streamclust.store.store", "Store"),
    "RunResult": ("streamclust.pipeline", "RunResult"),
    "Settings": ("streamclust.config", "Settings"),
    "load_settings": ("streamclust.config", "load_settings"),
    "agreement": ("streamclust.stages.every_k", "agreement"),
    "label_with": ("streamclust.estimators", "label_with"),
    "StreamingPCA": ("streamclust.streaming.pca", "StreamingPCA"),
    "StreamingKMeans": ("streamclust.streaming.kmeans", "StreamingKMeans"),
    "StreamingGaussianMixture": ("streamclust.streaming.mixture", "StreamingGaussianMixture"),
    "draw_case": ("streamclust.demo", "draw_case"),
    "StreamclustError": ("streamclust.errors", "StreamclustError"),
    "InputError": ("streamclust.errors", "InputError"),
    "BudgetError": ("streamclust.errors", "BudgetError"),
    "ConflictError": ("streamclust.errors", "ConflictError"),
    "DamageError": ("streamclust.errors", "DamageError"),
}
__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604  # the names are strings, in one place

if TYPE_CHECKING:
    from streamclust.budget import plan_for as plan
    from streamclust.config import Settings, load_settings
    from streamclust.demo import draw_case
    from streamclust.errors import BudgetError, ConflictError, DamageError, InputError, StreamclustError
    from streamclust.estimators import label_with
    from streamclust.exporting import export
    from streamclust.pipeline import RunResult, run
    from streamclust.stages.every_k import agreement
    from streamclust.store.store import Store
    from streamclust.store.store import open_store as open  # as zarr.open: the word users expect
    from streamclust.streaming.kmeans import StreamingKMeans
    from streamclust.streaming.mixture import StreamingGaussianMixture
    from streamclust.streaming.pca import StreamingPCA


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that the command line answers at once."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__

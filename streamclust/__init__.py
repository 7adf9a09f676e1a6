"""Image descriptors to clusters, labels, outliers and density images, out of core."""

from __future__ import annotations

__all__ = ["__version__"]
__version__ = "0.1.0"

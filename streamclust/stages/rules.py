"""What every further algorithm gives: a rule that labels a block's rows, and what to store of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

Values = Mapping[str, NDArray[Any]]


class Rule(Protocol):
    """Labels rows by a fitted algorithm; small enough to go to every task."""

    def judge(self, Z: NDArray[Any]) -> Values:
        """``label`` (n,) int32, and maybe ``confidence`` (n,) float32, of valid reduced rows Z : (n, p)."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A fitted algorithm.

    Attributes
    ----------
    rule : how rows are labelled.
    means : (k, p), where its clusters are, about which their rows are added up.
    arrays, about : what to store of the model.
    note : how it was fitted, in words.
    """

    rule: Rule
    means: NDArray[Any]
    arrays: Values
    note: str
    about: Mapping[str, Any] = field(default_factory=dict)

"""What every stage of a run shares."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Self

from streamclust.blocks import Executor
from streamclust.config import Settings
from streamclust.journal import Journal
from streamclust.store.store import Store


@dataclass
class Job:
    """A store to work on, settings to work by, an executor to work with, a journal to say so in.

    As a context manager it lets go of the executor's client at the end.
    """

    store: Store
    settings: Settings
    executor: Executor
    journal: Journal = field(default_factory=Journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.close()


def fingerprint(*facts: Any) -> str:
    """A digest of everything a result was made from; equal fingerprints mean equal results."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

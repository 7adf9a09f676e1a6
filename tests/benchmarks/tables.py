"""Commands run and measured one by one, and their figures side by side."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.benchmarks.memory import measure

if TYPE_CHECKING:
    from collections.abc import Sequence

THREADS = 2
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "LOKY_MAX_CPU_COUNT")


@dataclass(frozen=True)
class Result:
    """One row of a table: seconds, peak bytes, quality (name to value), and the error where there was one."""

    seconds: float
    peak: int
    quality: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def run_command(command: Sequence[str], timeout: float | None = None) -> Result:
    """Run a peer (or ours) on THREADS threads; its last line of JSON, if any, gives seconds, quality and error."""
    done = measure(command, env={**os.environ, **dict.fromkeys(LIMITS, str(THREADS))}, timeout=timeout)
    said: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            said = json.loads(line)
    error = said.get("error", f"ended with {done.returncode}" if done.returncode else "")
    if done.returncode == -9 and timeout and done.seconds >= timeout:
        error = f"stopped after {timeout:.0f} s"
    return Result(said.get("seconds", done.seconds), done.peak, said.get("quality", {}), error)


class Table:
    """Rows of results, printed as Markdown; the ratio is of the seconds to those of the first row that is ours."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[tuple[str, Result, bool]] = []

    def add(self, name: str, result: Result, *, ours: bool = False) -> None:
        self.rows.append((name, result, ours))

    def __str__(self) -> str:
        base = next((r.seconds for _, r, ours in self.rows if ours and not r.error), None)
        lines = [f"### {self.title}", "", "| name | seconds | ratio to ours | peak MB | quality |"]
        lines.append("|---|--:|--:|--:|---|")
        for name, r, _ in self.rows:
            ratio = f"{r.seconds / base:.2f}" if base and not r.error else "-"
            words = (f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in r.quality.items())
            quality = r.error or ", ".join(words)
            lines.append(f"| {name} | {r.seconds:.2f} | {ratio} | {r.peak / 1e6:.0f} | {quality} |")
        return "\n".join(lines)

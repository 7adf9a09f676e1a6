"""A process that forks others, kills them at drawn points, and looks at what they left: ``python -m tests.kills.laps``.

A lap is one scene in one store: its process is killed, a new one is started in the same store, killed, and so on until
one ends before its point. A killed process stands still at its point until it is told on or the signal comes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from streamclust.blocks import Serial
from streamclust.store import arrays, draft
from streamclust.store.store import open_store
from streamclust.store.verify import read_log, verify
from tests.faults import assert_tidy, contents, no_fsync
from tests.kills.points import Points
from tests.kills.scenes import SCENES, damage_of, prepare


@dataclass
class Stood:
    """A child at its point, or one that ended before it: ``point`` is empty then. ``count`` are points it passed."""

    pid: int
    point: str
    count: int
    tell: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == -signal.SIGKILL
        os.close(self.tell)

    def go_on(self) -> int:
        self.release()
        return self.wait()

    def release(self) -> None:
        if self.point:
            os.write(self.tell, b"x")
        os.close(self.tell)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def start(work: Callable[[], None], root: Path, at: int) -> Stood:
    """Fork a process that does the work and stands still at its ``at``-th point below ``root``."""
    (here, say), (hear, tell) = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            os.close(here)
            os.close(tell)  # else a child whose parent died would wait for itself

            seen = list[str]()

            def reached(count: int, name: str) -> None:
                seen.append(name)
                if count == at:
                    os.write(say, f"{count}: {name}".encode())
                    os.read(hear, 1)

            arrays.forget_open_arrays()
            Points(root, reached)
            work()
            with contextlib.suppress(BrokenPipeError):  # who was told to go on is not listened to any more
                os.write(say, str(len(seen)).encode())
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:  # noqa: BLE001 - whatever it is, the parent's code must not run on in the child
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(say)
    os.close(hear)
    count, _, point = os.read(here, 4096).decode().partition(": ")
    os.close(here)
    return Stood(pid, point, int(count or -1), tell)


@dataclass
class Lap:
    """One scene in a store of its own, and what was published in it so far."""

    scene: str
    place: Path
    store: Path
    damaged: set[str] = field(default_factory=set)
    published: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        if name := SCENES[self.scene].start:
            shutil.copytree(self.place / name, self.store)
            self.damaged = damage_of(self.store)
            self.look()

    def run(self, at: int) -> Stood:
        return start(lambda: SCENES[self.scene].work(self.store, self.place), self.store, at)

    def look(self) -> None:
        """Open the store: it is sound, and all that was ever published is there as it was."""
        if not any((self.store / "log").glob("*.json")):
            assert not self.published
            return
        arrays.forget_open_arrays()
        open_store(self.store)
        found = verify(self.store, Serial())
        assert {one.file for one in found.damage} <= self.damaged, found.damage
        assert {one.file for one in found.taken_out} <= self.damaged, found.taken_out
        now = digests(self.store)
        changed = {f for f, digest in self.published.items() if now.get(f) != digest} - self.damaged
        assert not changed, changed
        self.published = now

    def sweep_beside(self) -> None:
        """Another process looks and sweeps: what a live writer has made stays."""
        before = held(self.store)
        open_store(self.store).sweep()
        self.look()
        assert all(map(os.path.exists, before)), [path for path in before if not Path(path).exists()]

    def end(self) -> dict[str, str]:
        """What the store holds, once it is swept."""
        arrays.forget_open_arrays()
        opened = open_store(self.store)
        with no_fsync():
            opened.sweep()
        assert_tidy_but_daily(self.store)
        found = verify(self.store, Serial())
        assert (found.damage, found.orphans, found.writers) == ((), (), 0), found
        return {name: hashlib.sha256(repr(about).encode()).hexdigest() for name, about in contents(opened).items()}


def assert_tidy_but_daily(store: Path) -> None:
    (store / "drafts" / "daily.lock").unlink(missing_ok=True)  # the lock of daily runs stays for the next
    assert_tidy(open_store(store))


def digests(store: Path) -> dict[str, str]:
    """Of every manifest, and of every file of every object that any of them names."""
    paths = [store / "log" / f"{k:08d}.json" for k in range(open_store(store).snapshot.number + 1)]
    for path in read_log(store / "log").objects:
        paths += [file for file in sorted((store / "data" / path).rglob("*")) if not file.name.endswith(".partial")]
    whole = {path.relative_to(store).as_posix(): path for path in paths if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in whole.items()}


def held(store: Path) -> set[str]:
    """The files of drafts whose writer lives, without what waits to be renamed, which may be so meanwhile."""
    alive = [(record, path) for record, path, lives in draft.records(store) if lives]
    roots = [store / "drafts" / record.removesuffix(".json") for record, _ in alive]
    roots += [store / "data" / path for _, path in alive]
    ours = {str(p) for root in roots for p in root.rglob("*") if p.is_file() and not p.name.endswith(".partial")}
    return ours | {str(store / "drafts" / record) for record, _ in alive}


def laps(scene: str, seed: int, kills: int, place: Path) -> list[str]:
    """So many kills in a scene, and the points at which they were."""
    rng, tried, number = random.Random(f"{scene} {seed}"), list[str](), 0
    wanted, points = uninterrupted(scene, place)
    while len(tried) < kills:
        number += 1
        lap = Lap(scene, place, place / f"{scene}-{number}")
        lap.begin()
        mine = list[str]()
        try:
            while len(tried) < kills:
                stood = lap.run(1 + int(points * rng.random() ** 1.5))
                if not stood.point:
                    assert stood.go_on() == 0
                    break
                mine.append(f"{stood.count}, {stood.point}")
                tried.append(f"{scene} {mine[-1]}")
                if rng.random() < 0.3 and lap.published:
                    lap.sweep_beside()
                stood.kill()
                lap.look()
            stood = lap.run(rng.randrange(1, points))
            if stood.point and lap.published:
                mine.append(f"swept beside {stood.count}, {stood.point}")
                lap.sweep_beside()
            assert stood.go_on() == 0
            lap.look()
            ended = lap.end()
            assert ended == wanted, {n for n in ended.keys() | wanted.keys() if ended.get(n) != wanted.get(n)}
        except Exception as error:
            raise AssertionError(f"scene {scene}, seed {seed}, lap {number}, killed at {mine}: {error!r}") from error
        shutil.rmtree(lap.store)
    return tried


def uninterrupted(scene: str, place: Path) -> tuple[dict[str, str], int]:
    """What the scene ends as, and how many points there are on the way."""
    lap = Lap(scene, place, place / f"{scene}-whole")
    lap.begin()
    stood = lap.run(-1)
    assert stood.go_on() == 0
    lap.look()
    return lap.end(), stood.count


def main(seed: str, *wanted: str) -> None:
    """``python -m tests.kills.laps SEED SCENE=KILLS ...``: says every point at which a process was killed."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        asked = [each.split("=") for each in wanted]
        prepare(place, {SCENES[scene].start for scene, _ in asked})
        for scene, kills in asked:
            print("\n".join(laps(scene, int(seed), int(kills), place)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The command line: every command on one store; what is wrong is one line and an exit code, and the store as it was."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from streamclust import __version__
from streamclust.cli import app
from streamclust.demo import tour
from streamclust.errors import InputError
from streamclust.remote import connecting
from streamclust.store import arrays
from streamclust.store.store import open_store
from tests.cases import clustered, matrices, metadata, small_toml, write_case
from tests.faults import ROOT

COMMANDS = [
    "run",
    "ingest",
    "fit",
    "predict",
    "outliers",
    "map",
    "render",
    "report",
    "export",
    "info",
    "plan",
    "demo",
    "verify",
]
STAGES = ["fit", "predict", "outliers", "map", "render", "report"]
DRAWING = ["render", "report"]


def invoke(*args):
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


def spawn(*args, **options):
    """Run a command as a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    # A shell that runs the tests in the background makes its children ignore interrupts.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{listen}; from streamclust.cli import main; main()", *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A case, settings for a quick run, and the store of a first quiet run with what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    case = write_case(
        folder / "case", matrices(51, 300, {"a": 8, "b": 6}), metadata(300), "zip", broken=range(0, 300, 3)
    )
    toml = small_toml(folder)
    process = spawn("run", folder / "s", case, "--config", toml, "--quiet", "--json", "--columns", "site=camera")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return folder, case, toml, out, err


def test_run_quiet_and_json(made):
    folder, _, _, out, err = made
    facts = json.loads(out)
    assert err == ""
    assert facts["images"] == 300
    assert facts["clusters"].keys() == {"a", "b"}
    page = (folder / "s" / "report" / "index.html").read_text()
    assert facts["report"] == str(folder / "s" / "report" / "index.html")
    assert "broken picture" in page
    assert len(list((folder / "s" / "report" / "sheets").iterdir())) == sum(facts["clusters"].values())


@pytest.mark.parametrize("name", [pytest.param(s, marks=pytest.mark.slow if s in DRAWING else ()) for s in STAGES])
def test_stages_again_are_one_json_object(made, name):
    folder, _, toml, _, _ = made
    number = open_store(folder / "s").snapshot.number
    done = invoke(name, folder / "s", "--config", toml, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert isinstance(json.loads(done.stdout), dict)
    assert open_store(folder / "s").snapshot.number == number


@pytest.mark.parametrize("ending", ["csv", "parquet", "pickle"])
def test_export(made, tmp_path, ending):
    out = tmp_path / f"o.{ending}"
    done = invoke("export", made[0] / "s", out, "--json")
    assert json.loads(done.stdout) == {"file": str(out), "rows": 300}
    assert out.stat().st_size > 1000


def test_info_plan_and_ingest(made, tmp_path):
    folder, case, toml, _, _ = made
    assert json.loads(invoke("info", folder / "s", "--json").stdout)["batches"] == {"case": 300}
    assert "images: 300" in invoke("info", folder / "s").stdout
    for source in (folder / "s", case):
        facts = json.loads(invoke("plan", source, "--config", toml, "--json").stdout)
        assert facts["peak_bytes"] == max(step["peak_bytes"] for step in facts["steps"])
        assert "workers, disk" in (text := invoke("plan", source).stdout)
        assert "at the rates measured just now" in text
        fit = json.loads(invoke("plan", source, "--for", "fit", "--json").stdout)
        assert 0 < fit["seconds"] == pytest.approx(sum(step["seconds"] for step in fit["steps"]))
        assert {step["command"] for step in fit["steps"]} == {"fit"}
    assert json.loads(invoke("plan", case, "--for", "daily", "--json").stdout)["steps"][0]["name"].endswith("ingest")
    for source, command, said in ((folder / "s", "daily", "is a store"), (case, "walk", "no such command is planned")):
        refused = invoke("plan", source, "--for", command)
        assert refused.exit_code == 2
        assert said in refused.stderr
    again = invoke("ingest", folder / "s", case, "--json", "--columns", "site=camera")
    assert json.loads(again.stdout)["rows"] == 300
    named = invoke("ingest", tmp_path / "s", case, "--batch", "monday", "--quiet")
    assert "monday" in named.stdout
    assert named.stderr == ""


def test_history_rollback_and_at(made, tmp_path):
    shutil.copytree(made[0] / "s", tmp_path / "s")
    store, last = tmp_path / "s", open_store(made[0] / "s").snapshot.number
    found = json.loads(invoke("history", store, "--json").stdout)["snapshots"]
    assert [one["number"] for one in found] == list(range(last + 1))
    assert len(invoke("history", store).stdout.splitlines()) == last + 1
    assert json.loads(invoke("info", store, "--at", 1, "--json").stdout)["clusters"] == {}
    assert invoke("export", store, tmp_path / "o.csv", "--at", 1).exit_code == 0
    assert "kmeans" not in (tmp_path / "o.csv").read_text().splitlines()[0]
    assert invoke("alarms", store, "--at", 1).stdout == "no alarm so far\n"
    done = invoke("rollback", store, 1)
    assert f"the state of snapshot 1 is in force again as snapshot {last + 1}, 300 rows" in done.stdout
    refused.number = {store: last + 1}
    for bad in (("rollback", store, 99), ("rollback", store, 1), ("info", store, "--at", 99)):
        refused(store, invoke(*bad))
    assert json.loads(invoke("rollback", store, last, "--json").stdout)["number"] == last + 2
    assert json.loads(invoke("info", store, "--json").stdout)["clusters"].keys() == {"a", "b"}


def test_version_and_help():
    assert invoke("--version").stdout == f"streamclust {__version__}\n"
    for command in COMMANDS:
        said = invoke(command, "--help")
        assert said.exit_code == 0
        assert "--json" in said.stdout


def test_help_imports_nothing_heavy():
    heavy = {"numpy", "dask", "zarr", "sklearn", "pandas", "matplotlib", "pyarrow", "PIL", "pydantic"}
    code = f"import streamclust.cli, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch hostile",))


def bad_case(folder, kind):
    """A case with one thing wrong."""
    case = write_case(folder / "bad", {"a": clustered(1, 50, 4), "b": clustered(2, 49 if kind == "count" else 50, 4)})
    pickled = {"hostile": Hostile(), "text": "no array", "flat": np.ones(50), "objects": np.full((50, 2), None)}
    if kind in pickled:
        (case / "descriptors" / "a.pickle").write_bytes(pickle.dumps(pickled[kind]))
    elif kind == "empty":
        (case / "images_paths.csv").write_text("path\n")
    elif kind == "no paths":
        (case / "images_paths.csv").unlink()
    elif kind == "no descriptors":
        for path in (case / "descriptors").iterdir():
            path.unlink()
    return case


BAD_CASES = {
    "hostile": "", "text": "", "flat": "", "objects": "", "empty": "", "no paths": "images_paths.csv",
    "no descriptors": "descriptors", "count": "different numbers of rows",
}  # fmt: skip


def refused(store, done, code=2):
    """One line that says it, and the store as it was."""
    err = done.stderr
    assert done.exit_code == code, (done.stdout, err)
    assert err.startswith("streamclust: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err + done.stdout
    assert open_store(store).snapshot.number == refused.number[store]
    return err


@pytest.fixture
def store(made):
    path = made[0] / "s"
    refused.number = {path: open_store(path).snapshot.number}
    return path


@pytest.mark.parametrize("kind", BAD_CASES)
def test_bad_cases(store, tmp_path, kind):
    done = invoke("run", store, bad_case(tmp_path, kind), "--quiet")
    assert BAD_CASES[kind] in refused(store, done)
    assert not (ROOT / "hostile").exists()
    fresh = invoke("run", tmp_path / "fresh", tmp_path / "bad")
    assert fresh.exit_code == 2
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("column", ["\x1b[2J\x1b]0;owned\x07camera", "cam\u202eera", '"two\nlines"'])
def test_what_a_terminal_would_obey_is_not_printed(store, tmp_path, column):
    """A name of a stranger's column, in an error that lists them."""
    case = write_case(tmp_path / "bad", {"a": clustered(1, 3, 4)})
    lines = [f"path,{column}", *(f"pictures/{i}.jpg,north" for i in range(3))]
    (case / "images_paths.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    err = refused(store, invoke("run", store, case, "--columns", "camera=nothing", "--quiet"))
    assert "era" in err or "two lines" in err
    assert err.rstrip("\n").isprintable()


FLAGS = {
    ("--k", "301"): "cluster.k = 301",
    ("--k", "0"): "setting cluster.k",
    ("--memory", "4 bananas"): "4 bananas",
    ("--memory", "100MB"): "with one worker",
    ("--columns", "camera"): "such as camera=cam_id",
    ("--parts", "a"): "such as osnet=",
    ("--parts", "a=../*.npy"): "leads out of the case",
    ("--parts", "c=c-*.npy"): "no file is there",
    ("--columns", "camera=nothing"): "nothing",
    ("--scheduler", "tcp://127.0.0.1:9"): "no Dask scheduler answers",
    ("--scheduler", "nonsense"): "no address of a scheduler",
    ("--workers", "0"): "setting workers",
    ("--batch", "../up"): "not usable as a name",
    ("--config", "nowhere.toml"): "no such settings file",
    ("--path-encoding", "klingon"): "klingon",
    ("--pictures", "nowhere"): "nowhere",
}


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_bad_flags(store, made, tmp_path, monkeypatch, flags):
    monkeypatch.setattr(connecting, "CONNECT", "1s")
    done = invoke("run", store, made[1], *flags, "--quiet")
    assert FLAGS[flags] in refused(store, done)
    if flags not in {
        ("--batch", "../up"),
        ("--scheduler", "tcp://127.0.0.1:9"),
    }:  # the first makes one, the other waits
        assert invoke("run", tmp_path / "fresh", made[1], *flags).exit_code == 2
        assert not (tmp_path / "fresh").exists()


def test_an_unknown_key_is_named(store, made, tmp_path):
    (tmp_path / "x.toml").write_text("[cluster]\nkk = 3\n")
    done = invoke("fit", store, "--config", tmp_path / "x.toml")
    assert "cluster.kk" in refused(store, done)
    as_json = invoke("fit", store, "--config", tmp_path / "x.toml", "--json")
    assert json.loads(as_json.stdout)["exit_code"] == 2


def test_stores_that_are_none(store, made, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for command in [(name,) for name in STAGES] + [("info",)]:
        refused(store, invoke(*command, tmp_path / "missing"))
        refused(store, invoke(*command, file))
    for missing in (tmp_path / "missing", tmp_path):
        refused(store, invoke("verify", missing))
    refused(store, invoke("run", file, made[1]))
    refused(store, invoke("run", store, tmp_path / "no case"))
    refused(store, invoke("export", store, tmp_path / "o.xlsx"))
    refused(store, invoke("export", tmp_path / "missing", tmp_path / "o.csv"))
    invoke("ingest", tmp_path / "unfitted", made[1])
    for name in STAGES[1:]:
        assert "nothing was clustered yet" in refused(store, invoke(name, tmp_path / "unfitted", "--quiet"))


def test_a_damaged_chunk_is_exit_3(made, tmp_path):
    store = tmp_path / "s"
    invoke("ingest", store, made[1])
    chunk = next(path for path in store.glob("data/batches/*/descriptors/a/c/*/*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[10] ^= 1
    chunk.write_bytes(content)
    arrays.forget_open_arrays()
    refused.number = {store: 3}  # projections come of stored moments; reducing by them meets the damage
    assert str(chunk) in refused(store, invoke("fit", store, "--quiet", "--config", made[2]), 3)
    said = invoke("verify", store)
    assert said.exit_code == 3
    assert f"DAMAGED batches/000001-case descriptors/a, rows 0 to 300 ({chunk.relative_to(store)})" in said.stdout
    assert "1 DAMAGED" in said.stdout
    assert json.loads(invoke("verify", store, "--json").stdout)["damage"][0]["rows"] == [0, 300]
    assert invoke("verify", store, "--quick", "--quiet").exit_code == 0
    assert "exclude each other" in refused(store, invoke("verify", store, "--quick", "--repair"))
    (store / "data" / "zarr.json").unlink()
    mended = json.loads(invoke("verify", store, "--repair", "--json", "--config", made[2]).stdout)
    assert mended["repaired"][-1] == "written again from the manifest: data/zarr.json"
    assert [one["array"] for one in mended["damage"]] == ["descriptors/a"]


def test_interrupted_and_carried_on(made, tmp_path):
    store = tmp_path / "s"
    process = spawn("run", store, made[1], "--config", made[2], "--quiet")
    began = time.monotonic()
    while not (store / "log" / "00000003.json").exists():  # ingested and fitted: amid the stages
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "streamclust: interrupted; run the same command again to carry on\n"
    number = open_store(store).snapshot.number
    again = invoke("fit", store, "--config", made[2], "--quiet")
    assert again.exit_code == 0, again.stderr
    assert open_store(store).snapshot.number > number


def test_a_scheduler_s_workers_do_the_same(made, cluster, tmp_path):
    found = []
    for name, flags in (("here", []), ("there", ["--scheduler", cluster.scheduler.address])):
        process = spawn("ingest", tmp_path / name, made[1], "--quiet", *flags)
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        found.append(open_store(tmp_path / name).batches[0].entry.attributes["digest"])
    assert found[0] == found[1]


def test_a_demo_leaves_the_folders_of_others_alone(tmp_path):
    mine = tmp_path / "mine"
    (mine / "traffic.store").mkdir(parents=True)
    for name in ("notes.txt", "labels.parquet"):
        (mine / name).write_text("mine")
    for folder in (mine, mine / "notes.txt"):
        done = invoke("demo", folder, "--images", 200, "--quiet")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"streamclust: {folder}: ")
        assert "name a new one: streamclust demo FOLDER" in done.stderr
    assert {path.name for path in mine.iterdir()} == {"traffic.store", "notes.txt", "labels.parquet"}
    assert (mine / "labels.parquet").read_text() == "mine"


@pytest.mark.parametrize("before", [[], ["case-0-200"], ["case-3-300", "traffic.store", "notes.txt"]])
def test_a_demo_goes_on_in_its_own_folder(tmp_path, monkeypatch, before):
    def drawn(case, **_):
        raise InputError(case, "is drawn")

    monkeypatch.setattr(tour, "draw_case", drawn)
    for name in before:
        (tmp_path / "demo" / name).mkdir(parents=True)
    done = invoke("demo", tmp_path / "demo", "--images", 200, "--quiet")
    assert done.stderr == f"streamclust: {tmp_path / 'demo' / 'case-0-200'}: is drawn\n"

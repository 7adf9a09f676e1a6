"""The settings beside the jobs: what can run here runs, the rest is held against the software that reads it."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import dask
import psutil
import pytest
import yaml

from streamclust.store.store import open_store
from tests.cases import matrices, write_case
from tests.conftest import ROOT
from tests.distributed.cluster import STREAMCLUST, until
from tests.distributed.test_tls import authority

SETTINGS = ROOT / "jobs" / "settings"

UNITS = ("streamclust-daily.timer", "streamclust-daily.service")


def toml(name):
    return tomllib.loads((SETTINGS / name).read_text())


def documents(name):
    return list(yaml.safe_load_all((SETTINGS / name).read_text()))


def start(*arguments, **more):
    command = [sys.executable, str(SETTINGS / "start.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **more)


def parameters(*things):
    return {name for thing in things for name in inspect.signature(thing).parameters}


def test_every_file_is_explained_and_names_no_machine_but_examples():
    text = (SETTINGS / "README.md").read_text()
    for path in SETTINGS.iterdir():
        if path.is_file() and path.name != "README.md":
            assert path.name in text or path.suffix in text, path
            for host in re.findall(r"[\w.-]+\.(?:org|com|net|io)\b", path.read_text()):
                known = ("dask.org", "kubernetes.dask.org", "networking.k8s.io", "kubernetes.io")
                assert host in known or host.endswith(".example.org"), host


@pytest.mark.slow
def test_a_command_runs_on_the_local_cluster_and_its_exit_code_comes_out(tmp_path):
    case = write_case(tmp_path / "case", matrices(0, 60, {"a": 5}))
    command = f'{STREAMCLUST} ingest {tmp_path / "s"} {case} --quiet "$@" && exit 4'
    found = start(SETTINGS / "local.toml", "sh", "-c", command, "sh")
    assert found.returncode == 4, found.stderr
    assert open_store(tmp_path / "s").n == 60


def test_the_cluster_ends_with_the_launcher(tmp_path):
    waiting = "import sys, time, pathlib; pathlib.Path('here').touch(); time.sleep(600)"
    command = [sys.executable, str(SETTINGS / "start.py"), str(SETTINGS / "local.toml"), sys.executable, "-c", waiting]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        until((tmp_path / "here").exists, "the command")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3  # two workers and the command
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


@pytest.mark.parametrize(
    ("text", "said"),
    [("workers = 1", "KeyError: 'class'"), ("class = 'distributed.Cluster7'", "Cluster7"), ("=", "TOML")],
)
def test_a_mistake_in_the_settings_is_one_line(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    found = start(path, "true")
    assert found.returncode == 2
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_ssh_settings_are_options_that_dask_knows():
    from distributed import Nanny, Scheduler, SSHCluster, Worker

    options = toml("ssh.toml")["options"]
    assert options.keys() <= parameters(SSHCluster)
    assert options["scheduler_options"].keys() <= parameters(Scheduler, Scheduler.__bases__[1])
    assert options["worker_options"].keys() - {"n_workers"} <= parameters(Nanny, Worker)


@pytest.fixture
def certificates(tmp_path):
    """Dask's configuration as an environment: the settings for TLS with certificates that exist."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    text = (SETTINGS / "tls.yaml").read_text()
    for name, path in zip(("ca.pem", "cluster.pem", "cluster.key"), authority(tmp_path, "x"), strict=True):
        text = text.replace(f"/etc/streamclust/{name}", str(path))
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "tls.yaml").write_text(text)
    return os.environ | {"DASK_CONFIG": str(tmp_path / "dask")}


@pytest.mark.slow
def test_what_ssh_starts_on_the_other_machines_finds_together_over_tls(tmp_path, certificates):
    """SSHCluster runs dask_spec there; here it runs with the same options, without SSH between."""
    options = toml("ssh.toml")["options"]
    worker = {key: value for key, value in options["worker_options"].items() if key != "n_workers"}
    log = tmp_path / "scheduler.log"

    def spec(kind, about, out, *address):
        command = [sys.executable, "-m", "distributed.cli.dask_spec", *address]
        words = ["--spec", json.dumps({"cls": f"distributed.{kind}", "opts": about})]
        return subprocess.Popen(
            [*command, *words], env=certificates, stdout=out, stderr=subprocess.STDOUT, cwd=tmp_path
        )

    asking = (
        "import sys, distributed; c = distributed.Client(sys.argv[1]); c.wait_for_workers(1, 30); print(c.nthreads())"
    )
    with log.open("wb") as out, spec("Scheduler", options["scheduler_options"] | {"host": "127.0.0.1"}, out) as first:
        until(lambda: "Scheduler at" in log.read_text(), "the scheduler")
        address = re.search(r"Scheduler at:\s*(\S+)", log.read_text())[1]
        assert address.startswith("tls://")
        with spec("Nanny", worker, subprocess.DEVNULL, address) as second:
            command = [sys.executable, "-c", asking, address]
            found = subprocess.run(command, env=certificates, capture_output=True, text=True, check=False)
            second.terminate()
        first.terminate()
    assert found.returncode == 0, found.stderr
    assert re.fullmatch(r"\{'tls://[\d.:]+': 1\}\n", found.stdout)


def test_slurm_gets_a_script_for_tls_workers(tmp_path, certificates):
    pytest.importorskip("dask_jobqueue")
    found = start("--dry-run", SETTINGS / "slurm.toml", cwd=tmp_path, env=certificates)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert {"#SBATCH -p normal", "#SBATCH -A vehicles", "#SBATCH --mem=4G", "#SBATCH -t 04:00:00"} <= set(lines)
    (worker,) = [line for line in lines if "dask_worker" in line]
    assert "dask_worker tls://" in worker
    assert "--nthreads 1 --memory-limit 3.73GiB" in worker
    assert "--protocol tls://" in worker
    assert "--lifetime 230m" in worker


def test_tls_settings_are_keys_that_dask_knows():
    def keys(tree, above=""):
        for key, value in tree.items():
            yield from keys(value, f"{above}{key}.") if isinstance(value, dict) else [above + key]

    (settings,) = documents("tls.yaml")
    for key in keys(settings):
        dask.config.get(key)  # raises KeyError


def pods(document):
    """Every pod's spec in a document, by what it is for."""
    spec = document["spec"]
    if document["kind"] == "CronJob":
        return {"daily": spec["jobTemplate"]["spec"]["template"]["spec"]}
    cluster = spec["cluster"]["spec"] if document["kind"] == "DaskJob" else spec
    found = {"worker": cluster["worker"]["spec"], "scheduler": cluster["scheduler"]["spec"]}
    return found | ({"job": spec["job"]["spec"]} if document["kind"] == "DaskJob" else {})


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kubernetes-backfill.yaml"])
def test_kubernetes_objects_fit_together(name):
    for document in documents(name):
        label = document["metadata"]["name"]
        if document["kind"] == "NetworkPolicy":
            assert document["spec"]["podSelector"]["matchLabels"] == {"dask.org/cluster-name": label}
            continue
        for role, pod in pods(document).items():
            (container,) = pod["containers"]
            assert all(isinstance(word, str) for word in container["args"])
            assert container["image"] == "registry.example.org/streamclust:0.1.0"
            mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounts == {volume["name"] for volume in pod.get("volumes", ())}
            assert bool(mounts) == (role != "scheduler"), "all but the scheduler see the store"
        if document["kind"] in {"DaskCluster", "DaskJob"}:
            cluster = document["spec"] if document["kind"] == "DaskCluster" else document["spec"]["cluster"]["spec"]
            selector = cluster["scheduler"]["service"]["selector"]
            assert selector == {"dask.org/cluster-name": label, "dask.org/component": "scheduler"}
            ports = {port["name"] for port in cluster["scheduler"]["spec"]["containers"][0]["ports"]}
            assert ports == {port["targetPort"] for port in cluster["scheduler"]["service"]["ports"]}


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kubernetes-backfill.yaml"])
def test_kubernetes_objects_fit_the_operator_s_schemas(name):
    operator = importlib.util.find_spec("dask_kubernetes")
    if operator is None:
        pytest.skip("dask-kubernetes is not here")
    jsonschema = pytest.importorskip("jsonschema")
    folder = Path(operator.submodule_search_locations[0]) / "operator/deployment/helm/dask-kubernetes-operator/crds"
    for document in documents(name):
        if document["apiVersion"] == "kubernetes.dask.org/v1":
            text = (folder / f"{document['kind'].lower()}.yaml").read_text()
            crd = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            jsonschema.validate(document, closed(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))


def closed(schema):
    """The same schema, with unknown fields refused wherever fields are listed."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    listed = found.get("properties")
    if isinstance(listed, dict) and "type" in found:
        if "spec" in listed and "metadata" not in listed and "status" in listed:
            listed |= {"apiVersion": {}, "kind": {}, "metadata": {}}
        found.setdefault("additionalProperties", "x-kubernetes-preserve-unknown-fields" in found)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_reads_the_units(tmp_path):
    for name in UNITS:
        text = (SETTINGS / name).read_text().replace("/opt/streamclust/bin/python", sys.executable)
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", *(str(tmp_path / name) for name in UNITS)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_systemd_and_cron_start_the_same_job_at_the_same_time():
    service, timer = (SETTINGS / UNITS[1]).read_text(), (SETTINGS / UNITS[0]).read_text()
    job = re.search(r"^ExecStart=(.*)$", service, re.MULTILINE)[1]
    (line,) = [x for x in (SETTINGS / "streamclust-daily.cron").read_text().splitlines() if not x.startswith("#")]
    minute, hour, *rest = line.split(maxsplit=6)
    assert rest[:3] == ["*", "*", "*"]
    assert rest[3] == re.search(r"^User=(.*)$", service, re.MULTILINE)[1]
    assert rest[4].endswith(job)
    assert f"OnCalendar=*-*-* {int(hour):02d}:{int(minute):02d}" in timer
    assert documents("kubernetes.yaml")[-1]["spec"]["schedule"] == f"{minute} {hour} * * *"


def test_the_backfill_of_the_cluster_asks_its_scheduler(tmp_path):
    """The words of the settings, but for where things lie here and an address at which nobody can be."""
    write_case(tmp_path / "history" / "mon", matrices(1, 40, {"a": 4}))
    (document,) = documents("kubernetes-backfill.yaml")
    words = pods(document)["job"]["containers"][0]["args"]
    here = {
        "python": sys.executable,
        "/opt/streamclust/jobs/backfill.py": str(ROOT / "jobs" / "backfill.py"),
        "/data/cars.store": str(tmp_path / "s"),
        "/data/history": str(tmp_path / "history"),
        "$(DASK_SCHEDULER_ADDRESS)": "127.0.0.1",
    }
    done = subprocess.run([here.get(word, word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("backfill: --scheduler 127.0.0.1: no address of a scheduler")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("job", ["backfill", "daily", "density", "refit"])
def test_every_job_takes_a_scheduler(job):
    """So that it can be started on a cluster as the command line can."""
    words = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--help"]
    assert "--scheduler ADDRESS" in subprocess.run(words, capture_output=True, text=True, check=True).stdout

"""A cluster over TLS: the same bytes with the right certificates, and strangers are refused in one line."""

from __future__ import annotations

import shutil
import subprocess

import dask
import pytest

from streamclust.blocks import executor
from streamclust.errors import InputError
from streamclust.store.store import open_store
from tests.distributed.cluster import cluster, run
from tests.distributed.conftest import PRELOAD
from tests.faults import contents

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def authority(folder, name):
    """A certificate authority and one certificate signed by it: paths of ca, cert and key."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", *NEW_KEY, "-keyout", f"{name}-ca.key", "-out", f"{name}-ca.pem", "-subj", f"/CN={name}-ca")
    openssl("req", *NEW_KEY[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    signing = ("-CA", f"{name}-ca.pem", "-CAkey", f"{name}-ca.key", "-CAcreateserial", "-days", "2")
    openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
    return folder / f"{name}-ca.pem", folder / f"{name}.pem", folder / f"{name}.key"


def settings(ca, cert, key):
    """Dask's settings of a client."""
    return dict(zip(("ca-file", "client.cert", "client.key"), map(str, (ca, cert, key)), strict=True))


def environment(*files):
    """The same for another process."""
    names = ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path) for name, path in zip(names, files, strict=True)}


def configured(files):
    return dask.config.set({f"distributed.comm.tls.{key}": path for key, path in files.items()})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return {name: authority(folder, name) for name in ("ours", "theirs")}


@pytest.fixture(scope="module")
def secured(files, tmp_path_factory, orders):
    ca, cert, key = map(str, files["ours"])
    security = ("--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key)
    with cluster(tmp_path_factory.mktemp("tls"), 2, *PRELOAD, env=orders.env, security=security) as found:
        yield found


@pytest.mark.slow
def test_the_same_bytes_over_tls(secured, files, case, toml, ingested, tmp_path):
    assert secured.address.startswith("tls://")
    command = ("ingest", tmp_path / "s", case, *toml, "--scheduler", secured.address, "--quiet")
    code, _, err = run(tmp_path, *command, env=environment(*files["ours"]))
    assert (code, err) == (0, "")
    assert contents(open_store(tmp_path / "s")) == ingested


def test_a_stranger_in_plain_text_is_refused_in_one_line(secured, case, tmp_path):
    plain = secured.address.replace("tls://", "tcp://")
    code, out, err = run(tmp_path, "ingest", tmp_path / "s", case, "--scheduler", plain, "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith(f"streamclust: --scheduler {plain}: refused in the handshake (")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("trusted", ["ours", "theirs"], ids=["they refuse us", "we refuse them"])
def test_a_certificate_of_another_authority_is_refused(secured, files, trusted):
    _, cert, key = files["theirs"]
    wrong = settings(files[trusted][0], cert, key)
    with (
        configured(wrong),
        pytest.raises(InputError, match=r"refused in the handshake .*certificates of one authority"),
    ):
        executor(secured.address, None)


@pytest.mark.slow
def test_tls_at_a_plain_scheduler_is_refused(running, files, case, tmp_path):
    address = running.address.replace("tcp://", "tls://")
    command = ("ingest", tmp_path / "s", case, "--scheduler", address, "--quiet")
    code, out, err = run(tmp_path, *command, env=environment(*files["ours"]))
    assert (code, out) == (2, "")
    assert "refused in the handshake" in err
    assert len(err.splitlines()) == 1


def test_certificates_that_are_not_there_are_named(secured, files, tmp_path):
    with pytest.raises(InputError, match=r"comm.tls.ca-file: not set; .* set by DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
        executor(secured.address, None)
    ca, _, key = files["ours"]
    with (
        configured(settings(ca, tmp_path / "gone.pem", key)),
        pytest.raises(InputError, match=r"client.cert: no such fi"),
    ):
        executor(secured.address, None)


def test_a_key_may_stand_in_the_certificate_s_file(secured, files, tmp_path):
    ca, cert, key = files["ours"]
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    with configured({"ca-file": str(ca), "client.cert": str(both)}):
        found = executor(secured.address, None)
    assert found.map(abs, [-1, -2]) == [1, 2]
    found.close()

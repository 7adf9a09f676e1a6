"""From an address to a client of the Dask cluster there, over plain TCP or TLS, and one clear line where that fails."""

from __future__ import annotations

import asyncio
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from streamclust.errors import InputError
from streamclust.remote.client import Remote

CONNECT = "10s"
FORM = "tcp://HOST:PORT or tls://HOST:PORT"


def connect(address: str) -> Remote:
    """A client of the scheduler at ``address``; certificates for ``tls://`` come from Dask's configuration.

    Raises
    ------
    InputError : nobody answers there, or refuses us; it is no address. StreamclustError : versions differ.
    """
    import dask

    if "distributed" not in sys.modules and not dask.config.get("logging", None):
        # Its log would stand between our lines; who imported it before, or configured it, keeps it.
        names = ("distributed", "distributed.client", "asyncio")
        dask.config.set({"logging": dict.fromkeys(names, "critical")})
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    _knock(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)
            client = Client(address, timeout=CONNECT, set_as_default=False)
    except OSError as error:
        raise InputError(f"--scheduler {address}", f"no Dask scheduler answers ({error})") from None
    remote = Remote(client, owned=True)
    try:
        remote.check_versions()
    except BaseException:
        remote.close()
        raise
    return remote


def _knock(address: str) -> None:
    """Open and close one connection: what fails here would leave a half-made client that delays the end by 20 s."""
    from distributed import Security
    from distributed.comm import CommClosedError
    from distributed.comm import connect as open_comm

    async def knock() -> None:
        comm = await open_comm(address, timeout=CONNECT, **Security().get_connection_args("client"))
        await comm.close()

    where = f"--scheduler {address}"
    _check_address(address)
    _check_certificates(address)
    try:
        # In a thread of its own, as a notebook has a loop running in this one.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, knock()).result()
    except (CommClosedError, ValueError) as error:  # the latter where plain text comes before the handshake
        wanted = "the same protocol, tls or tcp, and certificates of one authority (Dask's distributed.comm.tls)"
        raise InputError(where, f"refused in the handshake ({error.__cause__ or error})", wanted) from None
    except OSError as error:
        raise InputError(where, f"no Dask scheduler answers ({error})", FORM) from None


def _check_address(address: str) -> None:
    from distributed.comm import parse_address, parse_host_port

    try:
        scheme, location = parse_address(address)
        parse_host_port(location)
    except ValueError as error:
        raise InputError(f"--scheduler {address}", f"no address of a scheduler ({error})", FORM) from None
    if scheme not in {"tcp", "tls"}:
        raise InputError(f"--scheduler {address}", f"no address of a scheduler: {scheme}", FORM)


def _check_certificates(address: str) -> None:
    """For ``tls://`` Dask must know these files, and they must be there; the key may stand in the certificate's."""
    import dask

    if not address.startswith("tls://"):
        return
    for key in ("ca-file", "client.cert", "client.key"):
        path = dask.config.get(f"distributed.comm.tls.{key}", None)
        if not Path(path).is_file() if path else key != "client.key":
            name = f"DASK_DISTRIBUTED__COMM__TLS__{key.upper().replace('.', '__').replace('-', '_')}"
            found = f"no such file: {path}" if path else "not set"
            where = f"Dask's setting distributed.comm.tls.{key}"
            raise InputError(where, found, "a PEM file", f"it can be set by {name}")

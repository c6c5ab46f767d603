"""Sweeps on many machines: the executor of a Dask cluster, through the optional extra ``cluster``."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from socket import create_connection
from typing import Any

from detection.errors import CallerError, MissingExtra


@contextmanager
def cluster_executor(address: str) -> Iterator[Executor]:
    """An executor whose tasks run on the workers of a Dask scheduler.

    Every worker needs this program in the same version, and imagery and models under the same paths.

    Args:
        address: of the scheduler, as ``tcp://scheduler:8786``.

    Raises:
        MissingExtra: ``dask.distributed`` is not installed.
        CallerError: no scheduler answers there.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise MissingExtra(
            "a cluster needs dask.distributed, which is not installed",
            do="pip install 'urban-inventory[cluster]'",
        ) from error
    try:
        # First by hand: a client that got no answer tries for half a minute more to say goodbye.
        host, port = distributed.comm.get_address_host_port(address, strict=True)
        create_connection((host, port), timeout=10).close()
        client = distributed.Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise CallerError(
            f"no Dask scheduler answers at {address}", do="Start it: dask scheduler; then dask worker."
        ) from error
    with client:
        yield client.get_executor(pure=False)

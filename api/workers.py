"""The service in several processes: one alone uses one core, whatever the machine has.

Uvicorn's supervisor keeps them; they share the listening socket. Each has its share of what the settings allow, and
tells its figures through files that whichever is asked for them reads.
"""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from api.app import create_app
from api.settings import Settings
from api.watching import FIGURES_FOLDER, log_requests
from inventory.memory import keep_freed_memory
from inventory.store.database import Database

_HUNG_AFTER_S = 60
"""A busy machine may leave a process unheard for a while; one that hangs is replaced."""
_SHARED = ("pool_size", "downloads_at_once", "client_requests", "requests_at_once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Makes the application, in the process that serves it: this goes there, and nothing that is open."""

    settings: Settings
    database_url: str

    def __call__(self) -> FastAPI:
        """The application over a database of its own, open until the process ends."""
        keep_freed_memory()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        log_requests(sys.stderr, self.settings.log_format)
        return create_app(self.settings, Database(self.database_url, pool_size=self.settings.pool_size))


def share_of(settings: Settings, workers: int) -> Settings:
    """What one of so many processes may hold: all of them together no less than what is set."""
    shares = {name: -(-getattr(settings, name) // workers) for name in _SHARED}
    # Each download holds a connection as long as it lasts; others are to go on meanwhile.
    shares["pool_size"] = max(shares["pool_size"], shares["downloads_at_once"] + 2)
    return settings.model_copy(update=shares)


def serve(
    listener: socket.socket, settings: Settings, database: Database, *, workers: int, **options: Any
) -> None:
    """Serves on a socket that listens already, until the program is told to stop.

    Args:
        workers: processes, ≥ 2.
        options: of ``uvicorn.Config``.
    """
    worker = Worker(settings=share_of(settings, workers), database_url=database.url)
    config = Config(
        worker,
        factory=True,
        workers=workers,
        timeout_worker_healthcheck=_HUNG_AFTER_S,
        **options,
    )
    with tempfile.TemporaryDirectory(prefix="urban-inventory-figures-") as folder:
        os.environ[FIGURES_FOLDER] = folder
        try:
            supervisor = _Supervisor(config, [listener])
            supervisor.run()
        finally:
            del os.environ[FIGURES_FOLDER]
    if supervisor.is_interrupted:
        raise KeyboardInterrupt


class _Supervisor(Multiprocess):
    """Uvicorn's, which also forgets what a process held that is no more."""

    is_interrupted = False

    def handle_int(self) -> None:
        super().handle_int()
        self.is_interrupted = True

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:
            # Held by its process alone, it ends with it: otherwise one that dies before it has answered is waited
            # for as long as one that hangs.
            process.child_conn.close()
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for gone in before - {process.pid for process in self.processes}:
            mark_process_dead(gone, os.environ[FIGURES_FOLDER])  # type: ignore[no-untyped-call]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

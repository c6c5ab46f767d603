"""Dumps of a database, made with the server's own pg_dump."""

import shutil
import subprocess
from pathlib import Path

from sqlalchemy import make_url

from inventory.errors import StoreError
from inventory.store.server import programs_for_new

_LEAST_FREE_BYTES = 256 * 1024**2


def dump_database(url: str, file: Path) -> None:
    """Writes a dump in pg_dump's custom format; an earlier file of that name is replaced at the end.

    Raises:
        StoreError: too little space, or pg_dump failed; no half-written file remains.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(file.parent).free < _LEAST_FREE_BYTES:
        raise StoreError(
            "too little space for a dump",
            where=str(file.parent),
            do="Free 256 MiB or more, then start again.",
        )
    unfinished = file.with_suffix(".part")
    parts = make_url(url)
    host = parts.query.get("host", parts.host or "")
    environment = {"PGPASSWORD": parts.password or "", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        [
            programs_for_new()["pg_dump"], "--format=custom", f"--host={host}",
            *([f"--port={parts.port}"] if parts.port else []),
            f"--username={parts.username}", f"--dbname={parts.database}", f"--file={unfinished}",
        ],
        env=environment, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise StoreError(f"the dump failed: {result.stderr.strip()}", where=str(file))
    unfinished.replace(file)

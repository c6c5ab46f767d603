"""Moving an embedded cluster to the newest installed PostgreSQL: dump with it, make anew, restore.

Slower than pg_upgrade and simpler: it needs no second copy of the old server's libraries in step, works
across any two versions, and leaves the old data folder beside the new one until somebody deletes it.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inventory.errors import StoreError
from inventory.store import roles
from inventory.store.cluster import EmbeddedCluster, open_cluster
from inventory.store.dump import dump_database
from inventory.store.server import BINARIES, PORT, SERVER_USER, Programs, programs_for_new


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """From which major version to which; where the dump and the old data folder lie."""

    before: int
    after: int
    dump: Path | None
    old_data: Path | None


def upgrade_cluster(folder: Path, *, backups: Path, binaries: Sequence[str] = BINARIES) -> Upgraded:
    """Move a folder's cluster to the newest installed version that has PostGIS; a no-op when it is there.

    Args:
        folder: the cluster's, as for ``open_cluster``.
        backups: folder for the dump that the new cluster is filled from; the dump stays.

    Raises:
        ClusterVersionUnusable: the version that made the data is no longer installed; install it again.
        DataFolderInUse: another program uses the cluster.
        StoreError: the dump has no room, or does not restore; the old cluster is then in place again.
    """
    newest = programs_for_new(binaries)
    with open_cluster(folder, binaries=binaries) as cluster:
        before = cluster.programs.version
        if before == newest.version:
            return Upgraded(before=before, after=before, dump=None, old_data=None)
        with cluster.alone("upgrade"):
            dump = backups / f"before-postgresql-{newest.version}.dump"
            dump_database(cluster.backup_url, dump)
            old_data = cluster.renew(lambda: _restore(cluster, newest, dump))
    return Upgraded(before=before, after=newest.version, dump=dump, old_data=old_data)


def _restore(cluster: EmbeddedCluster, programs: Programs, dump: Path) -> None:
    """Fill the new cluster's database; as superuser, since a dump sets owners and rights."""
    command = [programs["pg_restore"], "--exit-on-error", "--single-transaction"]
    command += [f"--host={cluster.socket_folder}", f"--port={PORT}", f"--username={SERVER_USER}"]
    command += [f"--dbname={roles.DATABASE}", str(dump)]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StoreError(
            f"the dump does not restore: {result.stderr.strip()}",
            where=str(dump),
            do="The old cluster is in place again; report this with the message.",
        )

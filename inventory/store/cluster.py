"""The embedded PostgreSQL cluster: a database that belongs to a folder, for a user who has none.

Every program that uses a folder holds a shared lock in it. The first one in starts the server, others
join it, the last one out stops it. A program killed on the way leaves a server without a holder,
which the next one takes over; a killed server is started again and recovers from its own log.

Files of a cluster: ``data/`` (PostgreSQL's), ``run/`` (its socket), ``server.log``, ``users.lock``
(shared, for as long as a program uses the cluster), ``start.lock`` (while one opens it) and
``exclusive.lock`` (migration, restore). As root the server runs as the user ``postgres``; where that
user cannot enter the folder, ``location`` in it names another one that holds all this instead, and
``belongs-to`` in that one names the folder it was last used for.
"""

import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import psycopg
from psycopg import sql

from inventory.errors import ClusterUnusable, DataFolderInUse, StoreError
from inventory.store import roles
from inventory.store.server import (
    BINARIES,
    PORT,
    SERVER_USER,
    Account,
    Programs,
    Server,
    account_for,
    data_version,
    initialise,
    programs_for,
    programs_for_new,
    running_postmaster,
)

PLACES = Path("/var/lib/urban-inventory/clusters")

# sockaddr_un holds 108 bytes, the closing zero included.
_LONGEST_SOCKET = 107
_SOCKET_NAME = f".s.PGSQL.{PORT}"
# libpq splits a list of hosts at commas, URLs and PostgreSQL's lists have their own special characters.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
_OPEN_TIMEOUT_S = 660.0
_EXCLUSIVE_WAIT_S = 1.0
_LONGEST_PAUSE_S = 60.0
_IDENT_MAP = "urban_inventory"
_BELONGS_TO = "belongs-to"
_log = logging.getLogger("urban_inventory.cluster")

_SAFEGUARDS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "data_sync_retry": "off",
    "row_security": "on",
    "log_parameter_max_length_on_error": "0",
}
_TUNING = {
    "cluster_name": "urban-inventory",
    "max_connections": "100",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "temp_file_limit": "2GB",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "jit": "off",  # compiling costs more than it saves on statements of milliseconds
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
}
# An eighth of the machine's memory: a city's indexes fit, and there is room for what else runs on a laptop.
_SHARED_BUFFERS_MB = (256, 2048)
# For tests alone: nothing of theirs has to survive the machine.
_FLEETING = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def _memory() -> dict[str, str]:
    least, most = _SHARED_BUFFERS_MB
    return {"shared_buffers": f"{min(max(psutil.virtual_memory().total // 8 >> 20, least), most)}MB"}


class EmbeddedCluster:
    """A running cluster that this program uses until ``close``; made by ``open_cluster``.

    Attributes:
        folder: the folder it belongs to.
        root: where its files lie: ``folder``, or the place named there.
    """

    def __init__(self, folder: Path, *, durable: bool, binaries: Sequence[str]) -> None:
        self.folder = folder
        self.root = _place(folder)
        self._durable = durable
        self._binaries = binaries
        self._users: int | None = None
        self._socket_folder = self.root / "run"

    @property
    def owner_url(self) -> str:
        """SQLAlchemy URL of the owner of the schema: for migrations alone."""
        return self.url(roles.OWNER)

    @property
    def service_url(self) -> str:
        """SQLAlchemy URL of the program's own, unprivileged role."""
        return self.url(roles.SERVICE)

    @property
    def reader_url(self) -> str:
        """SQLAlchemy URL of the role that reads the views for other programs."""
        return self.url(roles.READER)

    @property
    def backup_url(self) -> str:
        """SQLAlchemy URL of the role that dumps: reads everything, writes nothing."""
        return self.url(roles.BACKUP)

    @property
    def socket_folder(self) -> Path:
        """Folder of the server's socket, the ``host`` of every connection."""
        return self._socket_folder

    @property
    def programs(self) -> Programs:
        """The PostgreSQL programs that fit the server, and their version."""
        return programs_for(self._data, self._binaries)

    def url(self, role: str, database: str = roles.DATABASE) -> str:
        """SQLAlchemy URL for a role; no password: the server asks the kernel who connects."""
        host = self._socket_folder
        return f"postgresql+psycopg://{role}@/{database}?host={host}&port={PORT}"

    def connect_as_superuser(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """A connection that may do anything, each statement its own transaction; for cluster work."""
        return psycopg.connect(
            host=str(self._socket_folder),
            port=PORT,
            user=SERVER_USER,
            dbname=database,
            autocommit=True,
        )

    def is_running(self) -> bool:
        """Whether the server answers: asked, since a killed one still looks alive for a moment."""
        with suppress(psycopg.OperationalError), self.connect_as_superuser():
            return True
        return False

    def ensure_running(self) -> None:
        """Start the server again if it was killed; for programs that stay up (at the same address)."""
        if not self.is_running():
            with _locked(self.root / "start.lock", self._account(), wait_s=_OPEN_TIMEOUT_S):
                self._start()

    @contextmanager
    def kept_running(self, *, every_s: float = 1.0) -> Iterator[None]:
        """Look after the server from a thread of its own and start it again whenever it was killed.

        A start that fails (a full disk) is logged and tried again, ever more rarely.
        """
        leaving = threading.Event()

        def look_after() -> None:
            pause_s = every_s
            while not leaving.wait(pause_s):
                try:
                    if running_postmaster(self._data) is None:
                        self.ensure_running()
                    pause_s = every_s
                except (StoreError, OSError) as error:
                    _log.error("the database server does not start: %s", error)
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

        thread = threading.Thread(target=look_after, name="cluster", daemon=True)
        thread.start()
        try:
            yield
        finally:
            leaving.set()
            thread.join()

    @contextmanager
    def exclusive(self, job: str, *, wait_s: float = _EXCLUSIVE_WAIT_S) -> Iterator[None]:
        """Hold the right to a job that only one program may do at a time: migration, restore.

        Programs that merely use the cluster go on.

        Raises:
            DataFolderInUse: another program is at such a job; names it.
        """
        path = self.root / "exclusive.lock"
        with _locked(path, self._account(), wait_s=wait_s, job=job):
            yield

    @contextmanager
    def alone(self, job: str) -> Iterator[None]:
        """Hold the cluster with no other program in it, for a job that takes the server away.

        Raises:
            DataFolderInUse: another program uses the cluster, or is at an exclusive job.
        """
        if self._users is None:
            raise ClusterUnusable("this program has closed the cluster", where=str(self.root))
        with self.exclusive(job):
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                # The attempt cost us our shared lock.
                fcntl.flock(self._users, fcntl.LOCK_SH)
                raise _in_use(self.root, "another program") from error
            try:
                yield
            finally:
                fcntl.flock(self._users, fcntl.LOCK_SH)

    def renew(self, fill: Callable[[], None]) -> Path:
        """Put a new, empty cluster of the newest version in place of this one, then ``fill`` it.

        To be called ``alone``. If anything fails, the old data are in place again, their server stopped.

        Returns:
            The old data folder, set aside.
        """
        aside = self._data.with_name(f"data-{data_version(self._data)}-{int(time.time())}")
        self._server().stop()
        self._data.rename(aside)
        try:
            self._make()
            self._start()
            (self.root / "prepared").unlink(missing_ok=True)
            self._prepare()
            fill()
        except BaseException:
            if self._data.exists():
                self._server().stop()
                shutil.rmtree(self._data)
            aside.rename(self._data)
            raise
        return aside

    def close(self) -> bool:
        """Let go of the cluster; the last program stops the server. True if it was this one."""
        if self._users is None:
            return False
        handle, self._users = self._users, None
        try:
            # Not atomic: the shared lock goes first. Of two that leave at once, one or both fail or
            # win only after the other let go, so somebody always is the last.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            self._server().stop()
            self._remove_socket_folder()
            return True
        finally:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Join the cluster: make it if it is new, start it if it is down.

        Raises:
            ServerMissing, ClusterVersionUnusable, ClusterUnusable: it cannot run here.
            DataFolderInUse: another program has been opening or stopping it for minutes.
        """
        account = self._account()
        with _locked(self.root / "start.lock", account, wait_s=_OPEN_TIMEOUT_S):
            self._users = _open_lock(self.root / "users.lock", account)
            try:
                _acquire(self._users, self.root, fcntl.LOCK_SH, wait_s=_OPEN_TIMEOUT_S)
                if not self._data.exists():
                    self._make()
                self._start()
                self._prepare()
                if self.root != self.folder:
                    _write(self.root / _BELONGS_TO, f"{self.folder}\n", self._account())
            except BaseException:
                # What keeps it from opening may keep it from closing too: the first error tells more.
                with suppress(StoreError):
                    self.close()
                raise

    @property
    def _data(self) -> Path:
        return self.root / "data"

    def _account(self) -> Account:
        return account_for(self._data)

    def _server(self) -> Server:
        return Server(
            data=self._data,
            log=self.root / "server.log",
            programs=programs_for(self._data, self._binaries),
            account=self._account(),
            settings=_SAFEGUARDS | _TUNING | _memory() | ({} if self._durable else _FLEETING),
        )

    def _make(self) -> None:
        programs = programs_for_new(self._binaries)
        initialise(self._data, programs, self._account(), durable=self._durable)

    def _start(self) -> None:
        server = self._server()
        running = running_postmaster(self._data)
        if running is None:
            _write_access_rules(self._data, server.account)
            self._socket_folder = _socket_folder(self.root, server.account)
        postmaster = server.start(self._socket_folder)
        # A server that was taken over listens where its starter chose.
        self._socket_folder = postmaster.socket_folder or self._socket_folder

    def _prepare(self) -> None:
        """Roles, database and extensions; done again when this program's differ, always complete."""
        wanted = [*roles.cluster_statements(), *roles.database_statements()]
        mark = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
        done = self.root / "prepared"
        if done.exists() and done.read_text() == mark:
            return
        with self.connect_as_superuser() as connection:
            for statement in roles.cluster_statements():
                connection.execute(statement.encode())
            self._make_database(connection)
        with self.connect_as_superuser(roles.DATABASE) as connection:
            for statement in roles.database_statements():
                connection.execute(statement.encode())
        _write(done, mark, self._account())

    def _make_database(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        if connection.execute(query, [roles.DATABASE]).fetchone() is None:
            name = sql.Identifier(roles.DATABASE)
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))

    def _remove_socket_folder(self) -> None:
        # Only when empty: a socket still in it would mean a server still alive.
        with suppress(OSError):
            self._socket_folder.rmdir()


def open_cluster(
    folder: Path, *, durable: bool = True, binaries: Sequence[str] = BINARIES
) -> EmbeddedCluster:
    """The cluster of a folder, running; close it, or use it in ``with``.

    Args:
        folder: made if absent; the cluster's files lie in it (or where its ``location`` says).
        durable: False for tests: faster, and lost with the machine's power.
        binaries: patterns of folders that hold PostgreSQL's programs.

    Raises:
        ServerMissing: PostgreSQL or PostGIS is not installed.
        ClusterVersionUnusable: the folder belongs to a version that is not installed.
        ClusterUnusable: anything else that keeps the server from running here.
        DataFolderInUse: the folder is held by a program that does not come to an end.
    """
    try:
        cluster = EmbeddedCluster(folder.absolute(), durable=durable, binaries=binaries)
        cluster.open()
    except OSError as error:
        raise ClusterUnusable(
            f"the cluster's folder cannot be used: {error.strerror or error}",
            where=str(error.filename or folder),
            do="See that this user may write there, or set URBAN_INVENTORY_HOME to another folder.",
        ) from error
    return cluster


def remove_cluster(folder: Path) -> None:
    """Delete a cluster with all its data; nothing to do where there is none.

    Raises:
        DataFolderInUse: a program uses it.
    """
    if not folder.exists():
        return
    root = _located(folder) or folder
    if root.exists():
        with _locked(root / "users.lock", None, wait_s=0):
            if running_postmaster(root / "data") is not None:
                raise _in_use(root, "a server without a program")
            shutil.rmtree(root)
    shutil.rmtree(folder, ignore_errors=True)


def places_left_behind() -> list[tuple[Path, Path]]:
    """Places elsewhere whose folder, when it was last used, no longer says that it has its cluster there.

    A renamed or unmounted folder looks the same as a deleted one: a person has to tell.

    Returns:
        Each place, and the folder it was made for.
    """
    found = []
    for record in sorted(PLACES.glob(f"*/{_BELONGS_TO}")):
        folder = Path(record.read_text(encoding="utf-8").strip())
        location = folder / "location"
        if not location.is_file() or Path(location.read_text().strip()) != record.parent:
            found.append((record.parent, folder))
    return found


def _place(folder: Path) -> Path:
    """Where a folder's cluster lies: in it, or under PLACES where its server's user cannot enter it.

    A checkout under /root is closed to the user ``postgres``. The choice is written into the folder,
    so that the cluster follows it through renames, links and bind mounts.
    """
    _make_folder(folder)
    located = _located(folder)
    if located is not None:
        return located
    account = account_for(folder / "data")
    if account.can_enter(folder) or (folder / "data").exists():
        return folder
    place = PLACES / secrets.token_hex(8)
    _make_folder(place)
    if not account.can_enter(place):
        place.rmdir()
        raise ClusterUnusable(
            f"the user {account.name!r}, as whom PostgreSQL runs, can enter neither this folder nor {PLACES}",
            where=str(folder),
            do=f"Let it through: chmod o+x {PLACES.parent}; or set URBAN_INVENTORY_HOME to a folder "
            "that it can enter.",
        )
    return _record_place(folder, place)


def _record_place(folder: Path, place: Path) -> Path:
    """Write the place into the folder unless another program was faster; the one that stands."""
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="location.") as draft:
        draft.write(f"{place}\n")
        draft.flush()
        try:
            os.link(draft.name, folder / "location")
        except FileExistsError:
            place.rmdir()
    located = _located(folder)
    return located or place


def _located(folder: Path) -> Path | None:
    file = folder / "location"
    if not file.exists():
        return None
    place = Path(file.read_text().strip())
    # Root must not be led by a user's file to folders that are not clusters.
    if place.parent != PLACES:
        raise ClusterUnusable(
            f"names {place}, which is no cluster's place",
            where=str(file),
            do=f"Remove it, or write the cluster's folder under {PLACES} into it.",
        )
    return place


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents; as root passable, since the server runs as another user."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _socket_folder(root: Path, account: Account) -> Path:
    """A private folder for the socket: beside the data, or a short one where that path is too long."""
    beside = root / "run"
    fits = len(os.fsencode(beside / _SOCKET_NAME)) <= _LONGEST_SOCKET
    if fits and _PLAIN_PATH.fullmatch(str(beside)):
        return _private_folder(beside, account)
    status = root.stat()
    name = f"ui-{status.st_dev:x}-{status.st_ino:x}"
    base = Path("/run" if account.switch else "/tmp")
    try:
        return _private_folder(base / name, account)
    except ClusterUnusable:
        # Somebody else has that name, in a folder where everybody may make one (F29).
        return _private_folder(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base)), account)


def _private_folder(path: Path, account: Account) -> Path:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        account.own(path)
    status = path.lstat()
    if path.is_symlink() or status.st_uid not in (account.uid, os.geteuid()):
        raise ClusterUnusable(
            "the folder for the server's socket belongs to another user",
            where=str(path),
            do="Remove it.",
        )
    account.own(path)
    path.chmod(0o700)
    return path


def _write_access_rules(data: Path, account: Account) -> None:
    """Who may log in: over the socket alone, the server's own user and root, as any of our roles.

    The kernel tells the server who connects (peer), so there is no password to keep or lose, and a
    socket folder opened by mistake still lets nobody else in.
    """
    names = [SERVER_USER, *roles.ROLES]
    people = sorted({account.name, "root"})
    lines = [f'{_IDENT_MAP} "{person}" "{role}"' for person in people for role in names]
    _write(data / "pg_ident.conf", "\n".join(lines) + "\n", account)
    _write(data / "pg_hba.conf", f"local all all peer map={_IDENT_MAP}\n", account)


def _write(path: Path, text: str, account: Account) -> None:
    """Replace a small file whole, so that no crash leaves half of it."""
    if path.exists() and path.read_text() == text:
        return
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    account.own(draft)
    draft.replace(path)


@contextmanager
def _locked(path: Path, account: Account | None, *, wait_s: float, job: str = "opening") -> Iterator[None]:
    """Hold a lock file exclusively; it says who holds it."""
    handle = _open_lock(path, account)
    try:
        _acquire(handle, path.parent, fcntl.LOCK_EX, wait_s=wait_s)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {job}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _open_lock(path: Path, account: Account | None) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if account is not None and account.switch and path.stat().st_uid != account.uid:
        account.own(path)
    return handle


def _acquire(handle: int, root: Path, kind: int, *, wait_s: float) -> None:
    give_up_at = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= give_up_at:
                raise _in_use(root, _holder(handle)) from error
            time.sleep(0.02)
        else:
            return


def _holder(handle: int) -> str:
    """The program that wrote itself into a lock file, in words."""
    pid, _, job = os.pread(handle, 200, 0).decode(errors="replace").partition(" ")
    with suppress(ValueError, psutil.Error):
        return f"process {pid} ({psutil.Process(int(pid)).name()}, {job})"
    return "another program"


def _in_use(root: Path, holder: str) -> DataFolderInUse:
    return DataFolderInUse(
        f"{holder} holds this data folder",
        where=str(root),
        do="Wait until it has ended, then try again.",
    )

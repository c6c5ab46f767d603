"""One PostgreSQL server over one data folder: find its programs, make, start, recognise and stop it.

Knows nothing of who shares the folder or of our roles (``cluster.py`` does). The server runs
in a session of its own, so that Ctrl-C on the program does not reach it in the middle of a write, and
as an unprivileged user, because PostgreSQL refuses to run as root.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from inventory.errors import ClusterUnusable, ClusterVersionUnusable, ServerMissing

# Debian and Ubuntu keep each major version's programs apart, so an old one can still be read.
BINARIES = ("/usr/lib/postgresql/*/bin",)
OLDEST_VERSION = 14
SERVER_USER = "postgres"
PORT = 5432  # only a part of the socket's name: nothing listens on TCP

_INSTALL = "Install them with: apt-get install postgresql postgresql-postgis (or run scripts/setup)."
_START_TIMEOUT_S = 600.0  # replaying the write-ahead log of a crash may take minutes
_RETRY_S = 30.0
_STOP_TIMEOUT_S = 60.0
_LOG_BYTES = 10_000_000
# A killed server's children linger for a moment, and its own number answers until it is reaped (F4).
_COMES_TO_PASS = re.compile(
    r'lock file "[^"]+" already exists|pre-existing shared memory block|is already in use'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """PostgreSQL's programs of one major version."""

    version: int
    folder: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user a server runs as; ``switch`` when this program is root and has to become it."""

    uid: int
    gid: int
    name: str
    switch: bool

    def process_options(self) -> dict[str, Any]:
        """Arguments for ``subprocess`` that start a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def own(self, path: Path) -> None:
        """Give a file or folder of the cluster to this user; nothing to do without the right."""
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_enter(self, folder: Path) -> bool:
        """Whether this user can reach a folder: tried, because modes alone do not tell of ACLs."""
        command = ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]
        options = self.process_options()
        tried = subprocess.run(command, check=False, capture_output=True, cwd="/", **options)
        return tried.returncode == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """What a server wrote about itself into ``postmaster.pid`` of its data folder."""

    pid: int
    started_at: float
    socket_folder: Path | None
    ready: bool


def find_programs(binaries: Sequence[str] = BINARIES) -> list[Programs]:
    """Installed versions of PostgreSQL that the project can use, newest first, PostGIS or not."""
    found = []
    for pattern in binaries:
        for folder in Path("/").glob(pattern.lstrip("/")):
            version = _version_of(folder)
            if version is not None and version >= OLDEST_VERSION:
                found.append(Programs(version=version, folder=folder))
    return sorted(found, key=lambda programs: programs.version, reverse=True)


def programs_for_new(binaries: Sequence[str] = BINARIES) -> Programs:
    """The newest installed version that has PostGIS.

    Raises:
        ServerMissing: no PostgreSQL is installed, or none with PostGIS.
    """
    found = find_programs(binaries)
    for programs in found:
        if _has_postgis(programs):
            return programs
    if found:
        version = found[0].version
        raise ServerMissing(
            f"PostgreSQL {version} is installed without PostGIS",
            do=f"Install it with: apt-get install postgresql-{version}-postgis-3 (or run scripts/setup).",
        )
    raise ServerMissing(
        f"PostgreSQL {OLDEST_VERSION} or newer is not installed", where=", ".join(binaries), do=_INSTALL
    )


def programs_for(data: Path, binaries: Sequence[str] = BINARIES) -> Programs:
    """The programs of the version that made a data folder: no other can open it.

    Raises:
        ServerMissing: no PostgreSQL is installed at all.
        ClusterVersionUnusable: that version is not installed, or its PostGIS is not.
    """
    version = data_version(data)
    found = find_programs(binaries)
    for programs in found:
        if programs.version == version and _has_postgis(programs):
            return programs
    if not found:
        programs_for_new(binaries)
    have = ", ".join(str(programs.version) for programs in found)
    raise ClusterVersionUnusable(
        f"the data belong to PostgreSQL {version} with PostGIS; installed is {have}",
        where=str(data),
        do=f"Install postgresql-{version}-postgis-3 again; to move the data to another version, "
        "have both installed and run: urban-inventory cluster upgrade.",
    )


def data_version(data: Path) -> int:
    """Major version in a data folder's PG_VERSION."""
    try:
        return int((data / "PG_VERSION").read_text().strip())
    except (OSError, ValueError) as error:
        raise ClusterUnusable(
            f"not a data folder of PostgreSQL ({error})",
            where=str(data),
            do="Restore it from a backup, or move it away to begin anew.",
        ) from error


def account_for(data: Path) -> Account:
    """The user to run a server as: ourselves, or as root the data's owner, else ``postgres``.

    Raises:
        ClusterUnusable: the data folder belongs to somebody else, or to root.
        ServerMissing: root, and the system has no user ``postgres``.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        return _own_account(data, owner)
    if owner == 0:
        raise ClusterUnusable(
            "the data folder belongs to root, and PostgreSQL does not run as root",
            where=str(data),
            do=f"Give it to the server's user: chown -R {SERVER_USER}: '{data}'",
        )
    try:
        user = pwd.getpwnam(SERVER_USER) if owner is None else pwd.getpwuid(owner)
    except KeyError as error:
        raise ServerMissing(
            f"the system has no user {owner or SERVER_USER!r} to run PostgreSQL as, "
            "which does not run as root",
            do=_INSTALL,
        ) from error
    return Account(uid=user.pw_uid, gid=user.pw_gid, name=user.pw_name, switch=True)


def initialise(data: Path, programs: Programs, account: Account, *, durable: bool = True) -> None:
    """Make a new, empty data folder, all or nothing: a killed attempt leaves ``data`` absent."""
    building = data.with_name(f"{data.name}.new")
    _remove_tree(building)
    building.mkdir(mode=0o700)
    account.own(building)
    command = [programs["initdb"], f"--pgdata={building}", f"--username={SERVER_USER}"]
    command += ["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--auth=peer"]
    command += [] if durable else ["--no-sync"]
    made = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=building,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        **account.process_options(),
    )
    if made.returncode != 0:
        _remove_tree(building)
        raise ClusterUnusable(
            f"initdb failed: {_last_lines(made.stderr)}",
            where=str(data),
            do="See that the disk has room and that this user may write there.",
        )
    building.rename(data)


def read_postmaster(data: Path) -> Postmaster | None:
    """What ``postmaster.pid`` says, or None without one; whether it is true is another question."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid, started_at = abs(int(lines[0])), float(lines[2])
    except (OSError, ValueError, IndexError):
        return None
    socket_folder = Path(lines[4]) if len(lines) > 4 and lines[4] else None
    ready = len(lines) > 7 and lines[7].strip() == "ready"
    return Postmaster(pid=pid, started_at=started_at, socket_folder=socket_folder, ready=ready)


def running_postmaster(data: Path) -> Postmaster | None:
    """The live server of a data folder; None also where another process has taken its number."""
    postmaster = read_postmaster(data)
    if postmaster is None or not _lives(postmaster.pid):
        return None
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(postmaster.pid)
        if "postgres" in process.name() and _is_same(process, postmaster, data):
            return postmaster
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A data folder with everything needed to run it."""

    data: Path
    log: Path
    programs: Programs
    account: Account
    settings: dict[str, str]

    def start(self, socket_folder: Path) -> Postmaster:
        """Start the server, or take over the one that already runs on this data folder.

        A server killed a moment ago is waited for; its ``postmaster.pid`` is PostgreSQL's to judge.

        Raises:
            ClusterUnusable: it does not come up; with the end of its own log.
        """
        give_up_at = time.monotonic() + _RETRY_S
        pause_s = 0.05
        while True:
            postmaster = self._adopt() or self._start_once(socket_folder)
            if postmaster is not None:
                return postmaster
            said = self._said()
            # Retrying is for what passes by itself; a stranger under the old number does not go.
            waiting = _COMES_TO_PASS.search(said) and time.monotonic() < give_up_at
            if not waiting or (pause_s > 0.3 and self._stranger()):
                raise self._failure(said)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.5)

    def stop(self) -> None:
        """Fast shutdown: roll back what is open, write a checkpoint, leave; then by force."""
        postmaster = running_postmaster(self.data)
        if postmaster is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(postmaster.pid, number)
            if _gone(postmaster.pid, within_s=_STOP_TIMEOUT_S):
                return

    def _adopt(self) -> Postmaster | None:
        """A server that already runs here, once it is ready."""
        give_up_at = time.monotonic() + _START_TIMEOUT_S
        while (postmaster := running_postmaster(self.data)) and time.monotonic() < give_up_at:
            if postmaster.ready:
                return postmaster
            time.sleep(0.02)
        return None

    def _start_once(self, socket_folder: Path) -> Postmaster | None:
        """Start a server and wait for it; None when it ended at once, its reason in the log."""
        pid = self._launch(socket_folder)
        give_up_at = time.monotonic() + _START_TIMEOUT_S
        try:
            while _lives(pid):
                postmaster = read_postmaster(self.data)
                if postmaster and postmaster.pid == pid and postmaster.ready:
                    return postmaster
                if time.monotonic() > give_up_at:
                    raise self._failure(f"not ready after {_START_TIMEOUT_S:.0f} s\n{self._said()}")
                time.sleep(0.01)
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            raise
        return None

    def _launch(self, socket_folder: Path) -> int:
        """Start ``postgres`` as nobody's child; its process number.

        A shell in between ends at once, so the system adopts the server. As our child it would stay a
        zombie after its death for as long as we live, and no other program could start another (F4).
        """
        server = [self.programs["postgres"], "-D", str(self.data)]
        # On the command line, so that no edit of postgresql.conf opens a port or drops a safeguard.
        settings = self.settings | {"unix_socket_directories": str(socket_folder)}
        for name, value in settings.items():
            server += ["-c", f"{name}={value}"]
        with self._open_log() as log:
            launched = subprocess.run(
                ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *server],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.data,
                env=_environment(),
                start_new_session=True,
                **self.account.process_options(),
            )
        return int(launched.stdout)

    @contextmanager
    def _open_log(self) -> Iterator[int]:
        """The log, begun anew when large: the server itself writes only warnings and errors."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            self.account.own(self.log)
            os.write(handle, b"--- start\n")
            yield handle
        finally:
            os.close(handle)

    def _said(self) -> str:
        """What the server wrote since it was last started."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 100_000))
            return log.read().decode(errors="replace").rpartition("--- start\n")[2]

    def _stranger(self) -> str | None:
        """The process that has the number of a server that died, when it is no server of ours."""
        postmaster = read_postmaster(self.data)
        if postmaster is None or running_postmaster(self.data) is not None:
            return None
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(postmaster.pid)
            # A dead server whose parent has not taken leave of it yet: that passes, mostly at once.
            return None if process.status() == psutil.STATUS_ZOMBIE else process.name()
        return None

    def _failure(self, said: str) -> ClusterUnusable:
        stranger = self._stranger()
        if stranger is not None and _COMES_TO_PASS.search(said):
            file = self.data / "postmaster.pid"
            pid = getattr(read_postmaster(self.data), "pid", "?")
            return ClusterUnusable(
                f"an earlier server died, and its process number {pid} now belongs to {stranger!r}, "
                "so PostgreSQL will not start",
                where=str(self.data),
                do=f"End that process; or, once no postgres process runs on this folder, delete {file}.",
            )
        return ClusterUnusable(
            f"PostgreSQL {self.programs.version} does not start: {_last_lines(said)}",
            where=str(self.data),
            do=f"Its log is {self.log}.",
        )


def _version_of(programs: Path) -> int | None:
    """Major version from the folder's name, /usr/lib/postgresql/15/bin, when programs are there."""
    name = programs.parent.name
    usable = name.isdigit() and all((programs / p).exists() for p in ("postgres", "initdb"))
    return int(name) if usable else None


def _has_postgis(programs: Programs) -> bool:
    """Whether ``CREATE EXTENSION postgis`` would find its control file."""
    debian = Path("/usr/share/postgresql") / str(programs.version)
    if (debian / "extension/postgis.control").exists():
        return True
    try:
        share = subprocess.check_output([programs["pg_config"], "--sharedir"], text=True, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        return False
    return (Path(share.strip()) / "extension/postgis.control").exists()


def _own_account(data: Path, owner: int | None) -> Account:
    uid = os.geteuid()
    if owner not in (None, uid):
        raise ClusterUnusable(
            "the data folder belongs to another user",
            where=str(data),
            do="Run as that user, or choose another folder with URBAN_INVENTORY_HOME.",
        )
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError as error:
        raise ClusterUnusable(
            f"user number {uid} has no name, which PostgreSQL needs",
            do="Add it to /etc/passwd, or set URBAN_INVENTORY_DATABASE_URL.",
        ) from error
    return Account(uid=uid, gid=os.getegid(), name=name, switch=False)


def _environment() -> dict[str, str]:
    """A short environment: none of the caller's PG* variables, secrets or languages."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "LC_MESSAGES": "C"}


def _is_same(process: psutil.Process, postmaster: Postmaster, data: Path) -> bool:
    """Whether a postgres process serves this folder: by where it stands, else by when it began."""
    with suppress(psutil.AccessDenied, OSError):
        return Path(process.cwd()).samefile(data)
    # PostgreSQL writes its start a moment after the kernel does; a clock set in between moves it.
    return abs(process.create_time() - postmaster.started_at) < 10


def _lives(pid: int) -> bool:
    """Whether a server's process does; a dead one is taken leave of where that falls to us.

    As process 1 of a container we inherit servers: until reaped, a dead one's number still answers.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
        if "postgres" in process.name():
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return False


def _gone(pid: int, *, within_s: float) -> bool:
    give_up_at = time.monotonic() + within_s
    while _lives(pid):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.01)
    return True


def _last_lines(text: str, count: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-count:]) or "it said nothing"


def _remove_tree(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)

"""The embedded cluster: made, shared, recovered, stopped and refused (F3–F5, F28–F32)."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from inventory.errors import (
    ClusterUnusable,
    ClusterVersionUnusable,
    DataFolderInUse,
    ServerMissing,
    StoreError,
)
from inventory.store import roles
from inventory.store.cluster import EmbeddedCluster, open_cluster, remove_cluster
from inventory.store.cluster_upgrade import upgrade_cluster
from inventory.store.server import find_programs, read_postmaster
from tests.support.database import short_lived_folder

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run as two users")

# A program that uses a folder until it reads a line; says "open PID", then "closed True" or False.
PROGRAM = """
import sys
from pathlib import Path
from inventory.store.cluster import open_cluster
from inventory.store.server import read_postmaster
cluster = open_cluster(Path(sys.argv[1]), durable=False)
print("open", read_postmaster(cluster.root / "data").pid, flush=True)
sys.stdin.readline()
print("closed", cluster.close(), flush=True)
"""


@pytest.fixture(scope="module")
def enterable() -> Iterator[Path]:
    """A short temporary folder that other users may pass: pytest's own may not be."""
    folder = Path(tempfile.mkdtemp(prefix="ui-", dir=short_lived_folder()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def made(enterable: Path) -> Path:
    """A cluster made once and stopped; copies of it spare each test the second that making takes."""
    folder = enterable / "made"
    open_cluster(folder, durable=False).close()
    return folder


@pytest.fixture
def folder(made: Path, enterable: Path) -> Iterator[Path]:
    """A stopped cluster of this test alone; whatever still runs in it at the end is killed."""
    copy = Path(tempfile.mkdtemp(dir=enterable)) / "postgres"
    copy.parent.chmod(0o711)
    subprocess.run(["cp", "-a", made, copy], check=True)
    yield copy
    postmaster = read_postmaster(copy / "data")
    if postmaster and psutil.pid_exists(postmaster.pid):
        process = psutil.Process(postmaster.pid)
        if process.name() == "postgres":
            process.kill()
            process.wait(timeout=30)
    shutil.rmtree(copy.parent)


@pytest.fixture(scope="module")
def running(made: Path, enterable: Path) -> Iterator[EmbeddedCluster]:
    """A running cluster for tests that only ask it; its configuration file asks for dangerous things."""
    copy = enterable / "running"
    subprocess.run(["cp", "-a", made, copy], check=True)
    configuration = copy / "data/postgresql.conf"
    configuration.write_text(configuration.read_text() + "\nlisten_addresses = '*'\nfsync = off\n")
    with open_cluster(copy) as cluster:
        yield cluster


@contextmanager
def program(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that uses the folder, started in full when this returns."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline().split()
        assert said[:1] == ["open"]
        process.postmaster = int(said[1])  # type: ignore[attr-defined]
        yield process
        process.kill()


def end(process: subprocess.Popen[str]) -> str:
    """Let a program close its cluster; what it said about it."""
    said, _ = process.communicate("\n", timeout=30)
    return said.strip()


def pid_of(cluster: EmbeddedCluster) -> int:
    postmaster = read_postmaster(cluster.root / "data")
    assert postmaster is not None
    return postmaster.pid


def ask(url: str, query: str) -> object:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row and row[0]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_new_cluster_has_postgis_and_an_owner_who_may_migrate(running: EmbeddedCluster) -> None:
    assert ask(running.owner_url, "SELECT count(*) FROM pg_extension WHERE extname = 'postgis'") == 1
    with psycopg.connect(running.owner_url.replace("+psycopg", "")) as owner:
        owner.execute("CREATE SCHEMA anything")


def test_service_role_is_neither_superuser_nor_owner_nor_past_row_policies(running: EmbeddedCluster) -> None:
    query = "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication FROM pg_roles "
    assert ask(running.service_url, query + "WHERE rolname = current_user") is False
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert ask(running.service_url, owner) == roles.OWNER
    for attempt in ("CREATE SCHEMA mine", "CREATE TEMP TABLE t (x int)", f"SET ROLE {roles.OWNER}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(running.service_url, attempt)


def test_cluster_keeps_its_safeguards_whatever_its_configuration_file_says(running: EmbeddedCluster) -> None:
    wanted = {
        "listen_addresses": "",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_sync_retry": "off",
        "row_security": "on",
        "data_checksums": "on",
        "unix_socket_permissions": "0700",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
    }
    assert {name: ask(running.service_url, f"SHOW {name}") for name in wanted} == wanted
    listening = psutil.Process(pid_of(running)).net_connections(kind="inet")
    assert [c for c in listening if c.status == psutil.CONN_LISTEN] == []
    assert running.socket_folder.stat().st_mode & 0o777 == 0o700


def test_programs_share_a_cluster_and_the_last_one_out_stops_it(folder: Path) -> None:
    cluster = open_cluster(folder, durable=False)
    with program(folder) as other:
        assert other.postmaster == pid_of(cluster)  # type: ignore[attr-defined]
        server = pid_of(cluster)
        assert cluster.close() is False
        assert not gone(server)
        assert end(other) == "closed True"
        assert gone(server)


def test_programs_that_start_a_new_cluster_at_once_all_get_the_same(enterable: Path) -> None:
    folder = enterable / "at-once"
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    said = [process.stdout.readline() for process in started if process.stdout]
    assert len(set(said)) == 1
    assert said[0].startswith("open ")
    assert sorted(end(process) for process in started) == ["closed False", "closed False", "closed True"]
    remove_cluster(folder)


def test_cluster_of_a_killed_program_is_taken_over(folder: Path) -> None:
    with program(folder) as other:
        server: int = other.postmaster  # type: ignore[attr-defined]
        other.kill()
        other.wait()
    assert not gone(server)
    with open_cluster(folder, durable=False) as cluster:
        assert pid_of(cluster) == server
        assert ask(cluster.service_url, "SELECT 1") == 1
    assert gone(server)


def test_killed_server_recovers_what_was_committed(folder: Path) -> None:
    with open_cluster(folder) as cluster, program(folder) as other:
        with psycopg.connect(cluster.owner_url.replace("+psycopg", "")) as owner:
            owner.execute("CREATE SCHEMA kept CREATE VIEW kept AS SELECT generate_series(1, 1000) AS x")
        address = cluster.service_url
        os.kill(pid_of(cluster), signal.SIGKILL)
        cluster.ensure_running()
        assert cluster.service_url == address
        assert ask(cluster.owner_url, "SELECT count(*) FROM kept.kept") == 1000
        end(other)


def test_killed_server_is_started_by_the_next_program(folder: Path) -> None:
    first = open_cluster(folder, durable=False)
    server = pid_of(first)
    os.kill(server, signal.SIGKILL)
    with program(folder) as other:
        assert other.postmaster != server  # type: ignore[attr-defined]
        assert end(other) == "closed False"
    assert first.close() is True


def test_server_killed_under_a_program_that_stays_up_is_started_again(folder: Path) -> None:
    with open_cluster(folder) as cluster, cluster.kept_running(every_s=0.05):
        killed = pid_of(cluster)
        os.kill(killed, signal.SIGKILL)
        give_up_at = time.monotonic() + 30
        while (pid_of(cluster) == killed or not cluster.is_running()) and time.monotonic() < give_up_at:
            time.sleep(0.05)
        assert ask(cluster.service_url, "SELECT 1") == 1


def test_ctrl_c_on_a_program_does_not_reach_the_server(running: EmbeddedCluster) -> None:
    assert os.getsid(pid_of(running)) != os.getsid(0)
    assert os.getpgid(pid_of(running)) != os.getpgid(0)


def test_stale_socket_and_dead_number_are_no_obstacle(folder: Path) -> None:
    with open_cluster(folder, durable=False) as cluster:
        old = (folder / "data/postmaster.pid").read_text()
        account = (folder / "data").stat()
        os.kill(pid_of(cluster), signal.SIGKILL)
        while not gone(int(old.split()[0])):
            time.sleep(0.01)
    (folder / "data/postmaster.pid").write_text(old)
    os.chown(folder / "data/postmaster.pid", account.st_uid, account.st_gid)
    assert (folder / "run/.s.PGSQL.5432").exists()
    with open_cluster(folder, durable=False) as cluster:
        assert ask(cluster.service_url, "SELECT 1") == 1


def test_number_of_a_stranger_is_never_taken_for_the_server(folder: Path) -> None:
    """PostgreSQL itself refuses then; the program names the holder and deletes nothing (F28)."""
    owner = (folder / "data").stat()
    options = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    stranger = subprocess.Popen(["sleep", "60"], **options)  # type: ignore[call-overload]
    lock = folder / "data/postmaster.pid"
    text = f"{stranger.pid}\n{folder}/data\n1700000000\n5432\n{folder}/run\n\n\nready\n"
    lock.write_text(text)
    os.chown(lock, owner.st_uid, owner.st_gid)
    lock.chmod(0o600)
    try:
        with pytest.raises(ClusterUnusable, match=rf"{stranger.pid} now belongs to 'sleep'"):
            open_cluster(folder, durable=False)
        assert lock.read_text() == text
    finally:
        stranger.kill()
        stranger.wait()
    with open_cluster(folder, durable=False) as cluster:
        assert cluster.is_running()


@pytest.mark.parametrize("name", ["x" * 120, "普洱 и, 'quoted' $(id)"], ids=["long", "odd"])
def test_socket_of_a_long_or_odd_path_lies_in_a_short_private_folder(folder: Path, name: str) -> None:
    moved = folder.with_name(name)
    folder.rename(moved)
    with open_cluster(moved, durable=False) as cluster:
        assert ask(cluster.service_url, "SELECT 1") == 1
        socket_folder = cluster.socket_folder
        assert len(os.fsencode(socket_folder / ".s.PGSQL.5432")) <= 107
        assert socket_folder.stat().st_mode & 0o777 == 0o700
    assert not socket_folder.exists()


def test_short_socket_folder_of_somebody_else_is_not_used(folder: Path) -> None:
    moved = folder.with_name("x" * 120)
    folder.rename(moved)
    with open_cluster(moved, durable=False) as cluster:
        foreign = cluster.socket_folder
    foreign.symlink_to("/tmp")
    try:
        with open_cluster(moved, durable=False) as cluster:
            assert cluster.socket_folder != foreign
            assert ask(cluster.service_url, "SELECT 1") == 1
    finally:
        foreign.unlink()


def test_cluster_is_the_folders_by_whatever_path_it_is_reached(folder: Path) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    with open_cluster(folder, durable=False) as one, open_cluster(link, durable=False) as two:
        assert pid_of(one) == pid_of(two)
        assert one.close() is False


def test_second_exclusive_job_is_refused_within_two_seconds_and_names_the_first(
    running: EmbeddedCluster,
) -> None:
    with open_cluster(running.folder) as other, running.exclusive("restore"):
        began = time.monotonic()
        with (
            pytest.raises(DataFolderInUse, match=rf"process {os.getpid()} .*restore"),
            other.exclusive("migration"),
        ):
            pytest.fail("two exclusive jobs at once")
        assert time.monotonic() - began < 2
        assert ask(running.service_url, "SELECT 1") == 1


def test_missing_binaries_are_refused_with_the_line_that_installs_them(enterable: Path) -> None:
    with pytest.raises(ServerMissing, match="apt-get install postgresql"):
        open_cluster(enterable / "none", binaries=[f"{enterable}/nowhere/*/bin"])


def test_folder_of_a_version_not_installed_is_refused_untouched(folder: Path) -> None:
    (folder / "data/PG_VERSION").write_text("99\n")
    with pytest.raises(ClusterVersionUnusable, match=r"PostgreSQL 99 .*urban-inventory cluster upgrade"):
        open_cluster(folder)
    assert not (folder / "data/postmaster.pid").exists()


def test_new_folder_gets_the_newest_version_that_has_postgis(enterable: Path) -> None:
    installed = find_programs()[0]
    search = enterable / "versions"
    for version in (installed.version, 98):
        (search / str(version)).mkdir(parents=True)
    (search / str(installed.version) / "bin").symlink_to(installed.folder)
    newer = search / "98/bin"
    newer.mkdir()
    for name in ("postgres", "initdb"):
        (newer / name).write_text("#!/bin/sh\nexit 1\n")
        (newer / name).chmod(0o755)
    search.chmod(0o755)
    with open_cluster(enterable / "newest", durable=False, binaries=[f"{search}/*/bin"]) as cluster:
        assert cluster.programs.version == installed.version


@pytest.fixture
def two_versions(enterable: Path) -> Iterator[list[str]]:
    """A machine with two versions of PostgreSQL: the installed one, and the same under the next number."""
    installed = find_programs()[0]
    search = enterable / "two"
    for version in (installed.version, installed.version + 1):
        (search / str(version)).mkdir(parents=True)
        (search / str(version) / "bin").symlink_to(installed.folder)
    yield [f"{search}/*/bin"]
    shutil.rmtree(search)


def test_upgrade_moves_everything_and_keeps_the_old_data(folder: Path, two_versions: list[str]) -> None:
    with open_cluster(folder) as cluster, psycopg.connect(cluster.owner_url.replace("+psycopg", "")) as owner:
        owner.execute("CREATE SCHEMA things")
        points = "SELECT ST_MakePoint(g, g) AS place FROM generate_series(1, 9) g"
        owner.execute(f"CREATE TABLE things.kept AS {points}".encode())
        owner.execute(f"GRANT USAGE ON SCHEMA things TO {roles.SERVICE}".encode())
        owner.execute(f"GRANT SELECT ON things.kept TO {roles.SERVICE}".encode())
    upgraded = upgrade_cluster(folder, backups=folder.parent / "backups", binaries=two_versions)
    assert upgraded.after == upgraded.before + 1
    assert upgraded.dump is not None
    assert upgraded.dump.exists()
    assert upgraded.old_data is not None
    assert (upgraded.old_data / "PG_VERSION").exists()
    with open_cluster(folder) as cluster:
        assert ask(cluster.service_url, "SELECT sum(ST_X(place))::int FROM things.kept") == 45


def test_upgrade_that_fails_leaves_the_old_cluster_in_place(
    folder: Path, two_versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("no room")

    monkeypatch.setattr("inventory.store.cluster_upgrade._restore", refuse)
    with open_cluster(folder) as cluster:
        identity = ask(cluster.service_url, "SELECT system_identifier::text FROM pg_control_system()")
    with pytest.raises(StoreError, match="no room"):
        upgrade_cluster(folder, backups=folder.parent / "backups", binaries=two_versions)
    with open_cluster(folder) as cluster:
        assert ask(cluster.service_url, "SELECT system_identifier::text FROM pg_control_system()") == identity


def test_upgrade_under_another_program_is_refused(folder: Path, two_versions: list[str]) -> None:
    with program(folder) as other:
        with pytest.raises(DataFolderInUse):
            upgrade_cluster(folder, backups=folder.parent / "backups", binaries=two_versions)
        assert end(other) == "closed True"


def test_half_made_cluster_is_made_again(enterable: Path) -> None:
    folder = enterable / "half"
    (folder / "data.new/base").mkdir(parents=True)
    folder.chmod(0o711)
    with open_cluster(folder, durable=False) as cluster:
        assert ask(cluster.service_url, "SELECT 1") == 1
    assert not (folder / "data.new").exists()


def test_open_data_folder_is_refused_and_left_as_it_is(folder: Path) -> None:
    (folder / "data").chmod(0o755)
    with pytest.raises(ClusterUnusable, match="permissions"):
        open_cluster(folder)
    assert (folder / "data").stat().st_mode & 0o777 == 0o755


def test_failed_opening_leaves_nothing_locked(folder: Path) -> None:
    version = folder / "data/PG_VERSION"
    version.write_text("99\n")
    with pytest.raises(ClusterVersionUnusable):
        open_cluster(folder)
    version.write_text(f"{find_programs()[0].version}\n")
    with open_cluster(folder, durable=False) as cluster:
        assert cluster.is_running()
    assert cluster.close() is False


def test_removal_of_a_cluster_in_use_is_refused(folder: Path) -> None:
    with open_cluster(folder, durable=False) as cluster:
        with pytest.raises(DataFolderInUse):
            remove_cluster(folder)
        assert ask(cluster.service_url, "SELECT 1") == 1
    remove_cluster(folder)
    assert not folder.exists()


@as_root
def test_root_gets_a_cluster_in_a_folder_that_the_servers_user_cannot_enter(enterable: Path) -> None:
    closed = enterable / "closed"
    closed.mkdir(mode=0o700)
    folder = closed / "home/postgres"
    with open_cluster(folder, durable=False) as cluster:
        assert psutil.Process(pid_of(cluster)).username() == "postgres"
        assert not cluster.root.is_relative_to(closed)
        root = cluster.root
    folder.parent.rename(closed / "renamed")
    with open_cluster(closed / "renamed/postgres", durable=False) as cluster:
        assert cluster.root == root
    remove_cluster(closed / "renamed/postgres")
    assert not root.exists()


def test_folder_that_points_outside_the_clusters_places_is_refused(folder: Path) -> None:
    (folder / "location").write_text("/etc\n")
    with pytest.raises(ClusterUnusable, match="no cluster's place"):
        open_cluster(folder)


@as_root
def test_program_started_in_a_folder_closed_to_the_server_runs(
    folder: Path, enterable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = enterable / "working"
    closed.mkdir(mode=0o700)
    monkeypatch.chdir(closed)
    with open_cluster(folder, durable=False) as cluster:
        assert ask(cluster.service_url, "SELECT 1") == 1


@as_root
def test_cluster_of_a_user_runs_as_that_user_for_root_too(enterable: Path) -> None:
    """Whoever makes a cluster can go on using it after root did."""
    home = enterable / "nobody"
    home.mkdir()
    shutil.chown(home, "nobody")
    assert _as_nobody(home / "postgres") == 0
    with open_cluster(home / "postgres", durable=False) as cluster:
        assert psutil.Process(pid_of(cluster)).username() == "nobody"
    assert _as_nobody(home / "postgres") == 0


@as_root
def test_cluster_of_another_user_is_refused_in_words(folder: Path) -> None:
    assert _as_nobody(folder) == 78


def _as_nobody(folder: Path) -> int:
    """Open a cluster as an unprivileged user: 0 when it works, 78 when it is refused in words."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with open_cluster(folder, durable=False) as cluster:
                code = 0 if ask(cluster.service_url, "SELECT 1") == 1 else 2
        except ClusterUnusable:
            code = 78
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_environment_of_the_caller_does_not_reach_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("URBAN_INVENTORY_SECRET", "canary")
    with open_cluster(folder, durable=False) as cluster:
        assert "canary" not in str(psutil.Process(pid_of(cluster)).environ())
        assert ask(cluster.service_url, "SELECT 1") == 1


def test_socket_admits_only_the_servers_user_and_root(running: EmbeddedCluster) -> None:
    rules = (running.root / "data/pg_hba.conf").read_text()
    assert rules.split() == ["local", "all", "all", "peer", "map=urban_inventory"]
    with pytest.raises(psycopg.OperationalError, match="eer authentication failed"):
        ask(running.url("somebody"), "SELECT 1")


def test_operators_page_shows_the_lines_that_prepare_an_external_server() -> None:
    page = Path(__file__).parents[2] / "docs/operator.md"
    assert f"```sql\n{roles.administrator_script()}```" in page.read_text(encoding="utf-8")

"""Bringing a database to this program's schema, and telling which one it has.

The owner alone migrates. The embedded database is dumped first; an external one is migrated by
``urban-inventory migrate`` with the owner's address, or by its administrator with the printed lines.
"""

import io
from contextlib import redirect_stdout
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from inventory.errors import RightsMissing, SchemaBehind, StoreError, StoreUnreachable
from inventory.store import dump, roles
from inventory.store.addresses import engine_url
from inventory.store.schema import SCHEMA

_MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "schema_version"
_INSUFFICIENT_PRIVILEGE = "42501"
_NO_SUCH_ROLE = "42704"


def head_revision() -> str:
    """The revision that this program needs."""
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    assert head is not None, "the package carries no migrations"  # a packaging fault, never a user's
    return head


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at; None when it holds no schema of ours."""
    if (
        connection.execute(text("SELECT to_regclass(:name)"), {"name": f"{SCHEMA}.{VERSION_TABLE}"}).scalar()
        is None
    ):
        return None
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "version_table_schema": SCHEMA}
    )
    return context.get_current_revision()


def upgrade(owner_url: str, *, to: str = "head") -> None:
    """Migrates to this program's revision, or to an earlier one; nothing happens when it is there already."""
    engine = _owner_engine(owner_url)
    with engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, to)
    engine.dispose()


def upgrade_embedded(owner_url: str, *, backups: Path) -> None:
    """Migrates the embedded database, after a dump into ``backups`` if it holds a schema.

    Raises:
        SchemaBehind: the database is newer than the program.
        StoreError: the dump has no room.
    """
    engine = _owner_engine(owner_url)
    with engine.connect() as connection:
        found = current_revision(connection)
    engine.dispose()
    if found == head_revision():
        return
    _refuse_unknown(found)
    if found is not None:
        dump.dump_database(owner_url, backups / f"before-{head_revision()}.dump")
    upgrade(owner_url)


def upgrade_external(owner_url: str) -> str | None:
    """Migrates a database that somebody else runs; returns the revision it was at, None for none.

    Raises:
        SchemaBehind: the database is newer than the program.
        RightsMissing: the address's role may not change the schema.
        StoreUnreachable: the server does not answer.
    """
    try:
        engine = _owner_engine(owner_url)
        with engine.connect() as connection:
            found = current_revision(connection)
        engine.dispose()
        _refuse_unknown(found)
        if found != head_revision():
            upgrade(owner_url)
    except DBAPIError as error:
        raise _translated(error) from error
    return found


def revision_at(url: str) -> str | None:
    """The revision of the database at an address, None for none; any of our roles may ask.

    Raises:
        StoreUnreachable: the server does not answer.
    """
    try:
        engine = _owner_engine(url)
        with engine.connect() as connection:
            found = current_revision(connection)
        engine.dispose()
    except DBAPIError as error:
        raise _translated(error) from error
    return found


def upgrade_script(found: str | None = None) -> str:
    """The SQL of the migrations after ``found``, for an administrator who runs them by hand as the owner."""
    printed = io.StringIO()
    config = _config(output=printed)
    with redirect_stdout(io.StringIO()):
        command.upgrade(config, f"{found}:head" if found else "head", sql=True)
    return f'SET ROLE "{roles.OWNER}";\n{printed.getvalue()}RESET ROLE;\n'


def _translated(error: DBAPIError) -> StoreError:
    said = str(error.orig).splitlines()[0] if str(error.orig) else "no reason given"
    if getattr(error.orig, "sqlstate", None) in (_INSUFFICIENT_PRIVILEGE, _NO_SUCH_ROLE):
        return RightsMissing(
            f"the role of this address may not make the schema ({said})",
            where="URBAN_INVENTORY_OWNER_DATABASE_URL",
            do="Give the database's administrator the lines that “urban-inventory migrate” prints.",
        )
    if error.connection_invalidated or isinstance(error, OperationalError):
        return StoreUnreachable(
            f"the database does not answer: {said}", do="See that the address is right and the server up."
        )
    return StoreError(f"the database refused: {said}")


def _refuse_unknown(found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaBehind(
            f"the database's schema ({found}) is newer than this program",
            do="Install the newer program, or restore the backup made before its first start.",
        )


def _config(output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _owner_engine(url: str) -> Engine:
    return create_engine(engine_url(url), poolclass=NullPool, connect_args={"connect_timeout": 10})

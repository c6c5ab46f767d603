"""Migrating an external database: as its owner, or by the lines that its administrator runs."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from inventory.errors import ConfigurationError, SchemaBehind, StoreUnreachable
from inventory.migrating import Migrated, migrate_database
from inventory.store import migrate
from inventory.store.addresses import engine_url, without_password
from inventory.store.schema import SCHEMA
from tests.support.database import ClonedDatabase, DatabaseServer

HOME = Path("never-used")


def as_owner(cloned: ClonedDatabase, statement: str) -> None:
    engine = create_engine(cloned.owner_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_owner_migrates_an_empty_database(cloned: ClonedDatabase) -> None:
    as_owner(cloned, f"DROP SCHEMA {SCHEMA} CASCADE")
    done = migrate_database(HOME, database_url=cloned.service_url, owner_url=cloned.owner_url)
    assert done == Migrated(before=None, after=migrate.head_revision())
    assert migrate.revision_at(cloned.owner_url) == migrate.head_revision()


def test_current_schema_is_left_alone(cloned: ClonedDatabase) -> None:
    head = migrate.head_revision()
    for owner_url in (cloned.owner_url, None):
        done = migrate_database(HOME, database_url=cloned.service_url, owner_url=owner_url)
        assert done == Migrated(before=head, after=head)


@pytest.mark.parametrize("owner_is", ["unknown", "without the right"])
def test_without_the_right_the_administrators_lines_do_it(
    cloned: ClonedDatabase, database_server: DatabaseServer, owner_is: str
) -> None:
    as_owner(cloned, f"DROP SCHEMA {SCHEMA} CASCADE")
    owner_url = None if owner_is == "unknown" else cloned.service_url
    done = migrate_database(HOME, database_url=cloned.service_url, owner_url=owner_url)
    assert done.after is None
    assert done.script is not None
    # What comes before the schema makes roles and database, which this server has; \commands are psql's.
    schema = done.script[done.script.index("SET ROLE") :]
    with database_server.connect_as_superuser(cloned.name) as connection:
        connection.execute(schema.encode())
    assert migrate.revision_at(cloned.owner_url) == migrate.head_revision()
    # The owner made it, whoever ran the lines.
    as_owner(cloned, f"DROP SCHEMA {SCHEMA} CASCADE")


def test_newer_schema_is_refused(cloned: ClonedDatabase) -> None:
    as_owner(cloned, f"UPDATE {SCHEMA}.{migrate.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaBehind, match="newer than this program"):
        migrate_database(HOME, database_url=None, owner_url=cloned.owner_url)


def test_server_that_does_not_answer_is_said() -> None:
    with pytest.raises(StoreUnreachable):
        migrate_database(HOME, database_url=None, owner_url="postgresql://nobody@127.0.0.1:1/nothing")


def test_addresses_of_other_programs_serve_and_passwords_are_not_shown() -> None:
    assert engine_url("postgres://u:p@h/d") == "postgresql+psycopg://u:p@h/d"
    assert without_password("postgresql://u:secret@h/d") == "postgresql://u:***@h/d"
    assert "secret" not in without_password("postgresql://u@h/d?password=secret")
    for unusable in ("mysql://u:secret@h/d", "secret"):
        with pytest.raises(ConfigurationError) as refused:
            engine_url(unusable)
        assert "secret" not in str(refused.value)

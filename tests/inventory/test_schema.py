"""The schema: what the migrations make is what ``schema.py`` declares, and roles may only what they should."""

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from detection.taxonomy import ClassKind, SceneKind
from inventory.domain.evidence import DecisionKind
from inventory.domain.fold import STATUSES
from inventory.store.database import Database
from inventory.store.migrate import VERSION_TABLE
from inventory.store.schema import PARTITIONED, SCHEMA, metadata
from tests.support.database import ClonedDatabase

_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid), a.attidentity, col_description(c.oid, a.attnum), c.relpersistence, c.relkind
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'urban_inventory'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> :versions
"""
_CONSTRAINTS = """
    SELECT c.relname, o.conname, pg_get_constraintdef(o.oid)
    FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
    WHERE o.connamespace = 'urban_inventory'::regnamespace AND c.relname <> :versions
"""
_INDEXES = """
    SELECT tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'urban_inventory' AND tablename <> :versions
"""
_SEQUENCES = """
    SELECT sequencename, :versions FROM pg_sequences WHERE schemaname = 'urban_inventory'
"""


def described(connection: Connection) -> set[tuple[object, ...]]:
    """Everything the catalogue says of our tables, partitions of cities aside."""
    versions = {"versions": VERSION_TABLE}
    return {
        tuple(row)
        for query in (_COLUMNS, _CONSTRAINTS, _INDEXES, _SEQUENCES)
        for row in connection.execute(text(query), versions)
    }


def test_migrations_make_the_schema_that_is_declared(cloned: ClonedDatabase) -> None:
    engine = create_engine(cloned.owner_url, poolclass=NullPool)
    with engine.begin() as connection:
        migrated = described(connection)
        connection.execute(text(f"DROP SCHEMA {SCHEMA} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        metadata.create_all(connection)
        declared = described(connection)
    engine.dispose()
    assert migrated == declared
    assert len(migrated) > 300


def test_data_of_a_city_lies_in_partitions_of_its_own(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("SELECT urban_inventory.city_create(41)"))
        made = connection.execute(
            text(
                "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relname LIKE '%\\_41'"
            )
        ).scalars()
        assert {name.removesuffix("_41") for name in made} == set(PARTITIONED)
        connection.execute(text("SELECT urban_inventory.city_drop(41)"))
        left = connection.execute(text("SELECT count(*) FROM pg_class WHERE relname LIKE '%\\_41'")).scalar()
        assert left == 0


def test_python_and_the_database_know_the_same_words(database: Database) -> None:
    with database.transaction() as connection:
        checks = dict(
            connection.execute(
                text("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'")
            ).all()
        )
    for check, words in {
        "asset_class_kind_check": list(ClassKind),
        "scene_kind_check": list(SceneKind),
        "decision_kind_check": list(DecisionKind),
        "asset_state_status_check": list(STATUSES),
    }.items():
        assert set(words) == {part for part in checks[check].split("'")[1::2] if part != "::text"}


@pytest.mark.parametrize(
    "forbidden",
    [
        "CREATE TABLE urban_inventory.mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "DROP TABLE urban_inventory.asset",
        "UPDATE urban_inventory.change SET author = 'nobody'",
        "DELETE FROM urban_inventory.history",
        "DELETE FROM urban_inventory.schema_version",
        "SET ROLE urban_inventory_owner",
    ],
)
def test_the_services_role_cannot(cloned: ClonedDatabase, forbidden: str) -> None:
    engine = create_engine(cloned.service_url, poolclass=NullPool)
    with engine.connect() as connection, pytest.raises(ProgrammingError) as refused:
        connection.execute(text(forbidden))
    assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)
    engine.dispose()


def test_the_readers_role_sees_what_is_listed_and_nothing_else(cloned: ClonedDatabase) -> None:
    engine = create_engine(cloned.reader_url, poolclass=NullPool)
    with engine.connect() as connection:
        result = connection.execute(text("SELECT city, id, class, geom FROM urban_inventory.listed_assets"))
        assert result.all() == []
    with engine.connect() as connection, pytest.raises(ProgrammingError) as refused:
        connection.execute(text("SELECT * FROM urban_inventory.asset"))
    assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)
    engine.dispose()

"""Migrating an external database: as its owner, or by the lines that its administrator runs."""

import json
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from detection.errors import Conflict
from detection.taxonomy import shipped_taxonomy
from inventory.comparing import change
from inventory.decisions import NewDecision, decide
from inventory.domain.evidence import DecisionKind
from inventory.errors import ConfigurationError, SchemaBehind, StoreUnreachable
from inventory.migrating import Migrated, migrate_database
from inventory.store import migrate
from inventory.store.addresses import engine_url, without_password
from inventory.store.database import Database
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


_OLD_CITY = """
    INSERT INTO urban_inventory.asset_class VALUES ('tree', 'static', '{}');
    INSERT INTO urban_inventory.city (code, name, time_zone, metric_crs, boundary) VALUES ('old', 'Old', 'UTC',
        'EPSG:32647', 'SRID=4326;MULTIPOLYGON(((100 22,100.1 22,100.1 22.1,100 22.1,100 22)))');
    SELECT urban_inventory.city_create(1);
    INSERT INTO urban_inventory.source (city_id, name) VALUES (1, 'drone');
    INSERT INTO urban_inventory.campaign (city_id, source_id, name) VALUES (1, 1, '2024-05-01');
    INSERT INTO urban_inventory.scene (city_id, public_id, campaign_id, source_id, pixel_hash, georeference_hash,
        taken_at, kind, ground_resolution_m, width_px, height_px, footprint)
    SELECT 1, 's1', 1, 1, repeat('ab', 32), 'g', '2024-05-01', 'nadir', 0.1, 9, 9, boundary FROM urban_inventory.city;
    INSERT INTO urban_inventory.survey (city_id, public_id, scene_id, model, model_version, model_sha256, settings_key,
        card, classes, surveyed, windows, seconds)
    SELECT 1, 'v1', 1, 'm', '1', 'abc', 'k', '{}', '{tree}', boundary, 1, 1 FROM urban_inventory.city;
    INSERT INTO urban_inventory.survey_class VALUES (1, 'tree', true, true);
    INSERT INTO urban_inventory.observation (city_id, survey_id, class, geom, x, y, error_m, width_m, height_m, score,
        plausible, box_px)
    VALUES (1, 1, 'tree', 'SRID=4326;POINT(100.05 22.05)', 602500.5, 2438900.5, 1, 4, 4, 0.9, true, '{0,0,9,9}');
    INSERT INTO urban_inventory.asset (city_id, public_id, class, root_observation) VALUES (1, 'tree1', 'tree', 1);
    INSERT INTO urban_inventory.asset_hit VALUES (1, 1, 1);
    INSERT INTO urban_inventory.asset_state (city_id, asset_id, observation_id, survey_id, class, valid_from, listed,
        status, verified, review, probability, geom, x, y, error_m, width_m, height_m, score, hits, first_seen,
        last_seen, digest)
    SELECT 1, 1, 1, 1, 'tree', '2024-05-01', true, 'present', false, false, 0.5, geom, x, y, 1, 4, 4, 0.9, 1,
        '2024-05-01', '2024-05-01', 7 FROM urban_inventory.observation;
    INSERT INTO urban_inventory.history (city_id, recorded_at, asset_id, state_id, change, state, cause, cause_id,
        author)
    SELECT 1, at, 1, 99, change, jsonb_set(to_jsonb(s) - 'geom' - 'digest' - 'city_id', '{status}', '"doubtful"'),
        cause, 'v1', 'an'
    FROM urban_inventory.asset_state s, (VALUES (timestamptz '2024-05-02', 1, 'ingest'),
        (timestamptz '2024-06-02', -1, 'survey withdrawn')) AS h(at, change, cause);
    INSERT INTO urban_inventory.history (city_id, recorded_at, asset_id, state_id, change, state, cause, author)
    SELECT 1, '2024-06-02', 1, s.id, 1, to_jsonb(s) - 'geom' - 'digest' - 'city_id', 'survey withdrawn', 'an'
    FROM urban_inventory.asset_state s;
"""


_OLD_CARD = {
    "name": "m",
    "version": "1",
    "file": "model.onnx",
    "sha256": "ab" * 32,
    "licence": "AGPL-3.0-or-later",
    "description": "none",
    "input": {"ground_resolution_m": 0.1, "range_m": [0.05, 0.2], "window_px": 640, "margin_px": 64},
    "output": {"head": "one-to-many", "classes": ["tree"], "merge_iou": 0.5},
    "threshold": {"tree": 0.3},
}


def test_0002_keeps_what_is_stored_and_its_history(
    cloned: ClonedDatabase, database_server: DatabaseServer
) -> None:
    as_owner(cloned, f"DROP SCHEMA {SCHEMA} CASCADE")
    migrate.upgrade(cloned.owner_url, to="0001")
    with database_server.connect_as_superuser(cloned.name) as connection:
        connection.execute(_OLD_CITY.encode())
    migrate.upgrade(cloned.owner_url)
    with database_server.connect_as_superuser(cloned.name) as connection:
        now = connection.execute(
            b"SELECT s.track, s.minted_as, s.cell, c.cause, a.anchor FROM urban_inventory.asset_state s"
            b" JOIN urban_inventory.change c ON c.id = s.change_id JOIN urban_inventory.asset a ON a.id = s.asset_id"
        ).fetchall()
        assert now == [(1, "tree", 602 * 2**32 + 2438, "survey withdrawn", 1)]
        was = connection.execute(
            b"SELECT h.id, h.status, round(ST_X(h.geom)::numeric, 1), c.cause, c.author"
            b" FROM urban_inventory.history h JOIN urban_inventory.change c ON c.id = h.ended_by"
        ).fetchall()
        assert [(row[0], row[1], row[3], row[4]) for row in was] == [
            (99, "doubtful", "survey withdrawn", "an")
        ]
        assert float(str(was[0][2])) == 100.0


def test_the_first_change_after_0003_folds_the_city_and_keeps_its_ids(
    cloned: ClonedDatabase, database_server: DatabaseServer
) -> None:
    as_owner(cloned, f"DROP SCHEMA {SCHEMA} CASCADE")
    migrate.upgrade(cloned.owner_url, to="0001")
    with database_server.connect_as_superuser(cloned.name) as connection:
        connection.execute(_OLD_CITY.encode())
        connection.execute(b"UPDATE urban_inventory.survey SET card = '%s'" % json.dumps(_OLD_CARD).encode())
    migrate.upgrade(cloned.owner_url)
    database = Database(cloned.service_url)
    days = date(2020, 1, 1), date(2030, 1, 1)
    with pytest.raises(Conflict, match="urban-inventory rebuild --city old"):
        change(database, "old", *days, classes=["tree"])
    decide(
        database,
        "old",
        NewDecision(kind=DecisionKind.VERIFY, asset="tree1"),
        taxonomy=shipped_taxonomy(),
    )
    assert change(database, "old", *days, classes=["tree"])
    with database.transaction() as connection:
        rows = connection.execute(
            text(
                "SELECT a.public_id, s.verified, s.look FROM urban_inventory.asset_state s"
                " JOIN urban_inventory.asset a ON a.id = s.asset_id ORDER BY s.valid_from"
            )
        ).all()
    database.close()
    assert [tuple(row) for row in rows] == [("tree1", False, 1), ("tree1", True, 1)]


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

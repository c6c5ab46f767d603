"""Between two dates: which identities came to a place and which left it, counted in one pass (R7, R12)."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, select, text

from inventory.domain.change import Flow
from inventory.domain.places import City
from inventory.store.schema import asset_class

ELSEWHERE = -1
"""The place of what lies in none of the areas asked about."""

# Both dates' lists are read once each and joined by identity; a state belongs to one area version of a level at
# most. DISTINCT: a membership may be noted once for every span of dates.
_FLOWS = text(
    """
    WITH held AS (
        SELECT DISTINCT side.at_from, b.state_id, side.place
        FROM unnest(CAST(:sides AS boolean[]), CAST(:versions AS bigint[]), CAST(:places AS integer[]))
            AS side (at_from, version, place)
        JOIN urban_inventory.membership b ON b.city_id = :city AND b.area_version_id = side.version
    ), was AS (
        SELECT s.asset_id, s.class, s.x, s.y, s.error_m, coalesce(h.place, :elsewhere) AS place
        FROM urban_inventory.asset_state s
        LEFT JOIN held h ON h.at_from AND h.state_id = s.id
        WHERE s.city_id = :city AND s.asset_id IS NOT NULL AND s.listed
            AND s.valid_from <= :from AND (s.valid_to IS NULL OR s.valid_to > :from)
    ), now AS (
        SELECT s.asset_id, s.class, s.x, s.y, s.error_m, coalesce(h.place, :elsewhere) AS place
        FROM urban_inventory.asset_state s
        LEFT JOIN held h ON NOT h.at_from AND h.state_id = s.id
        WHERE s.city_id = :city AND s.asset_id IS NOT NULL AND s.listed
            AND s.valid_from <= :to AND (s.valid_to IS NULL OR s.valid_to > :to)
    ), shifted AS (
        SELECT DISTINCT coalesce(a.alias_of, a.id) AS asset_id
        FROM urban_inventory.decision d
        JOIN urban_inventory.asset a ON a.city_id = d.city_id AND a.public_id = d.asset
        WHERE d.city_id = :city AND d.kind = 'move' AND d.at > :from AND d.at <= :to AND NOT EXISTS (
            SELECT FROM urban_inventory.decision r WHERE r.city_id = d.city_id AND r.retracts = d.id)
    ), pair AS (
        SELECT was.place AS was_place, was.class AS was_class, now.place AS now_place, now.class AS now_class,
            (was.place, was.class) IS NOT DISTINCT FROM (now.place, now.class) AS stayed,
            (now.x - was.x) ^ 2 + (now.y - was.y) ^ 2 > 9 * (now.error_m ^ 2 + was.error_m ^ 2)
                OR shifted.asset_id IS NOT NULL AS moved
        FROM was FULL JOIN now ON now.asset_id = was.asset_id
        LEFT JOIN shifted ON shifted.asset_id = was.asset_id
    ), side AS (
        SELECT was_place AS place, was_class AS class, true AS at_from, stayed AS at_to, now_class IS NULL AS alone,
            moved, was_class <> now_class AS reclassified
        FROM pair WHERE was_class IS NOT NULL
        UNION ALL
        SELECT now_place, now_class, false, true, was_class IS NULL, moved, was_class <> now_class
        FROM pair WHERE now_class IS NOT NULL AND NOT stayed
    )
    SELECT place, class,
        count(*) FILTER (WHERE at_from) AS listed_from,
        count(*) FILTER (WHERE at_to) AS listed_to,
        count(*) FILTER (WHERE alone AND at_to) AS new,
        count(*) FILTER (WHERE alone AND at_from) AS gone,
        count(*) FILTER (WHERE NOT alone AND NOT at_from) AS entered,
        count(*) FILTER (WHERE NOT alone AND NOT at_to) AS left,
        count(*) FILTER (WHERE NOT alone AND moved) AS moved,
        count(*) FILTER (WHERE NOT alone AND reclassified) AS reclassified
    FROM side WHERE class = ANY(CAST(:classes AS text[])) GROUP BY place, class
    """
)


def flows_between(
    connection: Connection,
    city: City,
    *,
    first: datetime,
    second: datetime,
    versions_from: Mapping[int, int],
    versions_to: Mapping[int, int],
    classes: Sequence[str],
) -> dict[tuple[int, str], Flow]:
    """The flow of every place and class that has any; of static classes, which have an identity.

    Something moved when a person moved it, or when it stands further from where it stood than three standard
    errors of both positions.

    Args:
        first, second: instants; states and memberships are those valid then.
        versions_from, versions_to: area version in force at that instant → the caller's number of its place (≥ 0).
            Of one level; what lies in none of them has the place ``ELSEWHERE``.
    """
    sides = [True] * len(versions_from) + [False] * len(versions_to)
    rows = connection.execute(
        _FLOWS,
        {
            "city": city.id,
            "from": first,
            "to": second,
            "sides": sides,
            "versions": [*versions_from, *versions_to],
            "places": [*versions_from.values(), *versions_to.values()],
            "elsewhere": ELSEWHERE,
            "classes": list(classes),
        },
    ).mappings()
    return {
        (row["place"], row["class"]): Flow(
            **{name: row[name] for name in Flow.__slots__},
        )
        for row in rows
    }


def static_classes(connection: Connection) -> set[str]:
    """The classes whose things have an identity."""
    query = select(asset_class.c.name).where(asset_class.c.kind == "static")
    return set(connection.execute(query).scalars())

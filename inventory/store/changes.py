"""Between two dates: which identities came to a place and which left it, counted in one pass (R7, R12)."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select, text

from inventory.domain.change import Flow
from inventory.domain.places import City
from inventory.store.schema import asset_class

# Grouped, not joined: the planner takes joins of a city's partitions for two hundred times what they are, and walks
# one list for every row of the other (minutes instead of seconds for 500,000 assets).
_FLOWS = text(
    """
    WITH told AS (
        SELECT s.id, s.asset_id, s.class, s.x, s.y, s.error_m,
            s.valid_from <= :from AND (s.valid_to IS NULL OR s.valid_to > :from) AS at_from,
            s.valid_from <= :to AND (s.valid_to IS NULL OR s.valid_to > :to) AS at_to, s.listed,
            s.verified OR s.felled OR s.status = 'rejected' OR s.merged_into IS NOT NULL AS decided, s.hit AS seen,
            s.hit AND :grew AND s.first_seen > :from AND NOT EXISTS (
                SELECT FROM urban_inventory.survey v
                JOIN urban_inventory.survey_class k ON k.survey_id = v.id AND k.class = s.minted_as
                WHERE v.city_id = :city AND k.folded_at <= :from AND ST_Intersects(v.surveyed, s.geom)) AS beyond,
            NULL AS code_from, NULL AS code_to
        FROM urban_inventory.asset_state s
        WHERE s.city_id = :city AND s.asset_id IS NOT NULL
            AND s.valid_from <= :to AND (s.valid_to IS NULL OR s.valid_to > :from)
        UNION ALL
        SELECT b.state_id, NULL, NULL, NULL, NULL, NULL, false, false, false, false, false, false,
            CASE WHEN v.id = ANY(CAST(:versions_from AS bigint[])) THEN v.code END,
            CASE WHEN v.id = ANY(CAST(:versions_to AS bigint[])) THEN v.code END
        FROM urban_inventory.membership b
        JOIN urban_inventory.area_version v ON v.id = b.area_version_id
        WHERE b.city_id = :city AND b.area_version_id = ANY(CAST(:versions AS bigint[]))
    ), placed AS (
        SELECT max(asset_id) AS asset_id, max(class) AS class, max(x) AS x, max(y) AS y, max(error_m) AS error_m,
            bool_or(at_from) AS at_from, bool_or(at_to) AS at_to, bool_or(listed) AS listed,
            bool_or(decided) AS decided, bool_or(seen) AS seen, bool_or(beyond) AS beyond,
            max(code_from) AS code_from, max(code_to) AS code_to
        FROM told GROUP BY id HAVING bool_or(at_from) OR bool_or(at_to)
    ), both_dates AS (
        SELECT asset_id, max(class) FILTER (WHERE at_from AND listed) AS was_class,
            max(class) FILTER (WHERE at_to AND listed) AS now_class,
            max(class) FILTER (WHERE at_from AND seen AND NOT beyond) AS was_seen,
            max(class) FILTER (WHERE at_to AND seen AND NOT beyond) AS now_seen,
            bool_or(decided) AS decided,
            max(code_from) FILTER (WHERE at_from) AS was_place, max(code_to) FILTER (WHERE at_to) AS now_place,
            (max(x) FILTER (WHERE at_to) - max(x) FILTER (WHERE at_from)) ^ 2
                + (max(y) FILTER (WHERE at_to) - max(y) FILTER (WHERE at_from)) ^ 2 AS moved_m2,
            max(error_m) FILTER (WHERE at_to) ^ 2 + max(error_m) FILTER (WHERE at_from) ^ 2 AS error_m2
        FROM placed GROUP BY asset_id
    ), pair AS (
        SELECT was_class, now_class, was_place, now_place, was_seen, now_seen, decided,
            (was_place, was_class) IS NOT DISTINCT FROM (now_place, now_class) AS stayed,
            moved_m2 > 9 * error_m2 OR asset_id = ANY(CAST(:moved_by_hand AS bigint[])) AS moved
        FROM both_dates
    ), side AS (
        SELECT was_place AS place, was_class AS class, true AS at_from, stayed AS at_to, now_class IS NULL AS alone,
            moved, was_class <> now_class AS reclassified, decided, 0 AS seen_from, 0 AS seen_to, 0 AS crossed
        FROM pair WHERE was_class IS NOT NULL
        UNION ALL
        SELECT now_place, now_class, false, true, was_class IS NULL, moved, was_class <> now_class, decided, 0, 0, 0
        FROM pair WHERE now_class IS NOT NULL AND NOT stayed
        -- What the two looks saw, listed or not: only one of them, or both but not in the same place.
        UNION ALL
        SELECT was_place, was_seen, false, false, false, false, false, false,
            (now_seen IS NULL)::int, 0, -(now_seen IS NOT NULL)::int
        FROM pair WHERE NOT decided AND was_seen IS NOT NULL
            AND (was_place, was_seen) IS DISTINCT FROM (now_place, now_seen)
        UNION ALL
        SELECT now_place, now_seen, false, false, false, false, false, false,
            0, (was_seen IS NULL)::int, (was_seen IS NOT NULL)::int
        FROM pair WHERE NOT decided AND now_seen IS NOT NULL
            AND (was_place, was_seen) IS DISTINCT FROM (now_place, now_seen)
    )
    SELECT place, class,
        count(*) FILTER (WHERE at_from) AS listed_from,
        count(*) FILTER (WHERE at_to) AS listed_to,
        count(*) FILTER (WHERE alone AND at_to) AS new,
        count(*) FILTER (WHERE alone AND at_from) AS gone,
        count(*) FILTER (WHERE NOT alone AND at_to AND NOT at_from) AS entered,
        count(*) FILTER (WHERE NOT alone AND at_from AND NOT at_to) AS left,
        count(*) FILTER (WHERE NOT alone AND moved) AS moved,
        count(*) FILTER (WHERE NOT alone AND reclassified) AS reclassified,
        sum(seen_from) AS only_before, sum(seen_to) AS only_after, sum(crossed) AS crossed,
        count(*) FILTER (WHERE decided AND at_to) - count(*) FILTER (WHERE decided AND at_from) AS decided
    FROM side WHERE class = ANY(CAST(:classes AS text[])) GROUP BY place, class
    """
)


_MOVED_BY_HAND = text(
    """
    SELECT DISTINCT coalesce(a.alias_of, a.id) AS asset_id
    FROM urban_inventory.decision d
    JOIN urban_inventory.asset a ON a.city_id = d.city_id AND a.public_id = d.asset
    WHERE d.city_id = :city AND d.kind = 'move' AND d.at > :from AND d.at <= :to AND NOT EXISTS (
        SELECT FROM urban_inventory.decision r WHERE r.city_id = d.city_id AND r.retracts = d.id)
    """
)


def flows_between(
    connection: Connection,
    city: City,
    *,
    first: datetime,
    second: datetime,
    versions_from: Sequence[int],
    versions_to: Sequence[int],
    classes: Sequence[str],
    grew: bool,
) -> dict[tuple[str | None, str], Flow]:
    """The flow of every place and class that has any; of static classes, which have an identity.

    Something moved when a person moved it, or when it stands further from where it stood than three standard
    errors of both positions.

    Args:
        first, second: instants; states and memberships are those valid then.
        versions_from, versions_to: area versions of one level in force at that instant.
        grew: some ground was first surveyed between the instants: what is seen there tells of no change.

    Returns:
        By code of the area (None: in none of those given) and class.
    """
    asked = {"city": city.id, "from": first, "to": second}
    moved_by_hand = list(connection.execute(_MOVED_BY_HAND, asked).scalars())
    rows = connection.execute(
        _FLOWS,
        {
            **asked,
            "moved_by_hand": moved_by_hand,
            "grew": grew,
            "versions": [*versions_from, *versions_to],
            "versions_from": list(versions_from),
            "versions_to": list(versions_to),
            "classes": list(classes),
        },
    ).mappings()
    return {
        (row["place"], row["class"]): Flow(**{name: int(row[name]) for name in Flow.__slots__})
        for row in rows
    }


def static_classes(connection: Connection) -> set[str]:
    """The classes whose things have an identity."""
    query = select(asset_class.c.name).where(asset_class.c.kind == "static")
    return set(connection.execute(query).scalars())

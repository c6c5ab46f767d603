"""Questions about the store's own state, for ``doctor``: versions, rights, and sums against rows."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from inventory.domain.places import City
from inventory.store import leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The server as the session sees it; ``excess`` names rights that the service's role should not have."""

    postgresql: str
    postgis: str
    role: str
    excess: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SumOff:
    """A sum that differs from the rows it stands for; ``area`` None is the whole city, “by place” what polygons are
    counted from."""

    area: str | None
    class_name: str
    summed: int
    listed: int


_FACTS = text("""
    SELECT current_setting('server_version') AS postgresql, postgis_lib_version() AS postgis,
           current_user AS role, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolbypassrls, r.rolreplication,
           EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'urban_inventory'
                   AND pg_has_role(current_user, n.nspowner, 'USAGE')) AS owns
    FROM pg_roles r WHERE r.rolname = current_user
""")

_RIGHTS = {
    "rolsuper": "superuser",
    "rolcreatedb": "may create databases",
    "rolcreaterole": "may create roles",
    "rolbypassrls": "bypasses row policies",
    "rolreplication": "may replicate",
    "owns": "owns the schema",
}

_LISTED = text("""
    SELECT s.class, count(*) AS n FROM urban_inventory.asset_state s
    WHERE s.city_id = :city AND s.listed AND s.valid_to IS NULL GROUP BY s.class
""")

# Rows of now, counted one by one, beside what the deltas add up to; by area version, 0 for the city.
_SUMS = text("""
    WITH rows AS (
        SELECT 0 AS area_version_id, s.class, count(*) AS n
        FROM urban_inventory.asset_state s
        WHERE s.city_id = :city AND s.listed AND s.valid_to IS NULL GROUP BY s.class
        UNION ALL
        SELECT m.area_version_id, s.class, count(*)
        FROM urban_inventory.membership m
        JOIN urban_inventory.asset_state s ON s.city_id = m.city_id AND s.id = m.state_id
        WHERE m.city_id = :city AND m.valid_to IS NULL AND s.listed AND s.valid_to IS NULL
        GROUP BY m.area_version_id, s.class
    ), sums AS (
        SELECT d.area_version_id, d.class, sum(d.listed) AS n
        FROM urban_inventory.area_count_delta d WHERE d.city_id = :city
        GROUP BY d.area_version_id, d.class
    )
    SELECT v.level || ':' || v.code AS area, class, coalesce(sums.n, 0) AS summed, coalesce(rows.n, 0) AS listed
    FROM sums FULL JOIN rows USING (area_version_id, class)
    LEFT JOIN urban_inventory.area_version v ON v.id = area_version_id
    WHERE coalesce(sums.n, 0) <> coalesce(rows.n, 0)
    ORDER BY area_version_id, class
""")


def server_facts(connection: Connection) -> ServerFacts:
    """Versions of the server, and whether the service's role is as unprivileged as it should be."""
    row = connection.execute(_FACTS).mappings().one()
    return ServerFacts(
        postgresql=row["postgresql"],
        postgis=row["postgis"],
        role=row["role"],
        excess=tuple(said for name, said in _RIGHTS.items() if row[name]),
    )


def sums_off(connection: Connection, city: City) -> list[SumOff]:
    """Sums of now that differ from the rows behind them; none, unless somebody wrote past the program."""
    of_areas = [
        SumOff(area=row.area, class_name=row[1], summed=int(row.summed), listed=row.listed)
        for row in connection.execute(_SUMS, {"city": city.id})
    ]
    packed = {name: counted.listed for name, counted in leaves.totals(connection, city).items()}
    listed = {row[0]: int(row.n) for row in connection.execute(_LISTED, {"city": city.id})}
    of_places = [
        SumOff(area="by place", class_name=name, summed=packed.get(name, 0), listed=listed.get(name, 0))
        for name in sorted(packed.keys() | listed.keys())
        if packed.get(name, 0) != listed.get(name, 0)
    ]
    return of_areas + of_places

"""Assets as identities: their ids, roots and the observations their tracks are made of (R7)."""

import secrets

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, insert, select, text, update

from inventory.domain.fold import Folded
from inventory.domain.identity import KnownIds, Named
from inventory.domain.places import City
from inventory.store.schema import asset, asset_hit, observation

# Neither 0/o nor 1/l/i: ids are read aloud in the field. 10 of 31 signs: a million ids collide once in 1 600.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_LENGTH = 10


def public_id() -> str:
    """A new short, opaque id; it says nothing of what it names."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def load_ids(connection: Connection, city: City, class_name: str) -> KnownIds:
    """All ids of a class, oldest first, and the observations of their last tracks in order of date."""
    ids = connection.execute(
        select(asset.c.id, asset.c.root_observation, asset.c.root_decision)
        .where(asset.c.city_id == city.id, asset.c["class"] == class_name)
        .order_by(asset.c.id)
    ).all()
    hits = connection.execute(
        select(asset_hit.c.asset_id, asset_hit.c.observation_id)
        .join(asset, (asset.c.id == asset_hit.c.asset_id) & (asset.c.city_id == asset_hit.c.city_id))
        .where(asset_hit.c.city_id == city.id, asset.c["class"] == class_name)
        .order_by(asset_hit.c.asset_id, asset_hit.c.observation_id)
    ).all()
    return KnownIds(
        asset_id=_column([row.id for row in ids]),
        root_observation=_column([row.root_observation for row in ids]),
        root_decision=_column([row.root_decision for row in ids]),
        hit_asset=_column([row.asset_id for row in hits]),
        hit_observation=_column([row.observation_id for row in hits]),
    )


def save_ids(
    connection: Connection, city: City, class_name: str, folded: Folded, named: Named
) -> NDArray[np.int64]:
    """Mints ids for tracks without one, notes aliases, and links observations to their assets.

    Returns:
        (tracks,) the asset of each track.
    """
    asset_of_track = named.asset_of_track.copy()
    fresh = np.flatnonzero(asset_of_track < 0)
    if len(fresh):
        numbers = connection.execute(
            select(func.nextval("urban_inventory.asset_id_seq")).select_from(
                func.generate_series(1, len(fresh)).table_valued("n")
            )
        ).scalars()
        asset_of_track[fresh] = np.fromiter(numbers, np.int64, len(fresh))
    _insert_assets(connection, city, class_name, folded, asset_of_track, fresh)
    _note_aliases(connection, city, named, folded, asset_of_track)
    _link_hits(connection, city, folded, asset_of_track)
    return asset_of_track


def _insert_assets(
    connection: Connection,
    city: City,
    class_name: str,
    folded: Folded,
    asset_of_track: NDArray[np.int64],
    fresh: NDArray[np.int64],
) -> None:
    tracks = folded.tracks
    rows = [
        {
            "city_id": city.id,
            "id": int(asset_of_track[track]),
            "public_id": public_id(),
            "class": class_name,
            "root_observation": _or_none(tracks["root_observation"][track]),
            "root_decision": _or_none(tracks["root_decision"][track])
            if tracks["root_observation"][track] < 0
            else None,
            "replaces": int(asset_of_track[tracks["replaces"][track]])
            if tracks["replaces"][track] >= 0
            else None,
        }
        for track in fresh.tolist()
    ]
    if rows:
        connection.execute(insert(asset), rows)


def _note_aliases(
    connection: Connection, city: City, named: Named, folded: Folded, asset_of_track: NDArray[np.int64]
) -> None:
    heirs = folded.tracks["merged_into"]
    aliases: dict[int, int | None] = dict(named.aliases)
    for track in np.flatnonzero(heirs >= 0).tolist():
        aliases[int(asset_of_track[track])] = int(asset_of_track[heirs[track]])
    if aliases:
        connection.execute(
            _ALIAS, {"city": city.id, "aliases": list(aliases), "carried": list(aliases.values())}
        )


_ALIAS = text(
    """
    UPDATE urban_inventory.asset a SET alias_of = said.carried
    FROM unnest(CAST(:aliases AS bigint[]), CAST(:carried AS bigint[])) AS said(alias, carried)
    WHERE a.city_id = :city AND a.id = said.alias AND a.alias_of IS DISTINCT FROM said.carried
    """
)

_LINK = text(
    """
    INSERT INTO urban_inventory.asset_hit (city_id, observation_id, asset_id)
    SELECT :city, link.observation_id, link.asset_id
    FROM unnest(CAST(:observations AS bigint[]), CAST(:assets AS bigint[])) AS link(observation_id, asset_id)
    ON CONFLICT (city_id, observation_id) DO UPDATE SET asset_id = excluded.asset_id
    WHERE asset_hit.asset_id <> excluded.asset_id
    """
)


def _link_hits(connection: Connection, city: City, folded: Folded, asset_of_track: NDArray[np.int64]) -> None:
    """Links are overwritten, never removed: an id whose evidence is withdrawn finds its way back by them."""
    if len(folded.hit_observation):
        connection.execute(
            _LINK,
            {
                "city": city.id,
                "observations": folded.hit_observation.tolist(),
                "assets": asset_of_track[folded.hit_track].tolist(),
            },
        )


def successor_roots(connection: Connection, city: City, old_survey: int, new_survey: int) -> None:
    """Re-roots ids of a superseded scene in the observations of the same pixels in its successor (R7)."""
    old, new = observation.alias("old"), observation.alias("new")
    connection.execute(
        update(asset)
        .where(
            asset.c.city_id == city.id,
            asset.c.root_observation == old.c.id,
            old.c.city_id == city.id,
            old.c.survey_id == old_survey,
            new.c.city_id == city.id,
            new.c.survey_id == new_survey,
            new.c["class"] == old.c["class"],
            new.c.box_px == old.c.box_px,
        )
        .values(root_observation=new.c.id)
    )


def _column(values: list[int | None]) -> NDArray[np.int64]:
    return np.array([-1 if value is None else value for value in values], np.int64)


def _or_none(value: np.int64) -> int | None:
    return None if value < 0 else int(value)

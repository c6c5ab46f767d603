"""Assets as identities: their ids, anchors and the observations their tracks are made of (R7)."""

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, text, update

from inventory.domain.evidence import Integers
from inventory.domain.fold import Folded
from inventory.domain.identity import Anchored, Lookup, name_tracks
from inventory.domain.places import City
from inventory.domain.tracks import StoredStates
from inventory.store import leaves
from inventory.store.copy import copy_rows, draw_numbers, next_job, numbers, read_rows
from inventory.store.schema import asset, asset_hit, observation, staging_hit

# Neither 0/o nor 1/l/i: ids are read aloud in the field. 10 of 31 signs: a million ids collide once in 1 600.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_LENGTH = 10


def public_id() -> str:
    """A new short, opaque id; it says nothing of what it names."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def _public_ids(count: int) -> list[str]:
    """As many new ids; some hundred thousand at once."""
    letters = np.array(list(_ALPHABET))
    # Bytes beyond the last whole multiple of the alphabet would favour its first letters.
    limit = 256 - 256 % len(letters)
    drawn = np.empty(0, np.uint8)
    while len(drawn) < count * _LENGTH:
        more = np.frombuffer(secrets.token_bytes(count * _LENGTH + 64), np.uint8)
        drawn = np.concatenate([drawn, more[more < limit]])
    signs = letters[drawn[: count * _LENGTH] % len(letters)].reshape(count, _LENGTH)
    return [str(one) for one in np.ascontiguousarray(signs).view(f"<U{_LENGTH}").ravel()]


# --- anchors ---------------------------------------------------------------------------------------------

_KNOWN = text(
    """
    SELECT EXISTS (SELECT FROM urban_inventory.asset_hit h
                   WHERE h.city_id = :city AND h.observation_id BETWEEN b.least AND b.most)
    FROM (SELECT min(o.id) AS least, max(o.id) AS most FROM urban_inventory.observation o
          WHERE o.city_id = :city AND o.survey_id = :survey AND o.class = :class) b
    """
)
_REANCHOR = text(
    """
    WITH evidence AS (
        SELECT v.id, greatest(k.folded_at, s.taken_at) AS at FROM urban_inventory.survey v
        JOIN urban_inventory.survey_class k ON k.survey_id = v.id AND k.class = :class AND k.in_force AND k.adequate
        JOIN urban_inventory.scene s ON s.id = v.scene_id
        WHERE v.city_id = :city
    ), concerned AS (
        -- Whose track the anchor is in, not whose alias the id is: what people merged are two tracks.
        SELECT DISTINCT a.id, a.anchor, a.root_observation,
            coalesce((SELECT h.asset_id FROM urban_inventory.asset_hit h
                      WHERE h.city_id = a.city_id AND h.observation_id = a.anchor), a.id) AS carrier
        FROM urban_inventory.observation o
        JOIN urban_inventory.asset a ON a.city_id = o.city_id
            AND (a.anchor = o.id OR a.root_observation = o.id
                 OR a.id = (SELECT h.asset_id FROM urban_inventory.asset_hit h
                            WHERE h.city_id = o.city_id AND h.observation_id = o.id))
        WHERE o.city_id = :city AND o.survey_id = ANY(CAST(:surveys AS bigint[])) AND o.class = :class
            AND a.class = :class AND a.root_observation IS NOT NULL
    ), found AS (
        SELECT c.id, coalesce(
            (SELECT r.id FROM urban_inventory.observation r JOIN evidence e ON e.id = r.survey_id
             WHERE r.city_id = :city AND r.id = c.root_observation),
            -- Once moved an anchor stays, whoever's track holds it meanwhile, until the root is back.
            (SELECT r.id FROM urban_inventory.observation r JOIN evidence e ON e.id = r.survey_id
             WHERE r.city_id = :city AND r.id = c.anchor),
            (SELECT h.observation_id FROM urban_inventory.asset_hit h
             JOIN urban_inventory.observation r ON r.city_id = h.city_id AND r.id = h.observation_id
             JOIN evidence e ON e.id = r.survey_id
             WHERE h.city_id = :city AND h.asset_id IN (c.id, c.carrier)
             ORDER BY h.asset_id <> c.id, e.at, h.observation_id LIMIT 1),
            c.anchor) AS anchor
        FROM concerned c
    )
    UPDATE urban_inventory.asset a SET anchor = f.anchor FROM found f
    WHERE a.city_id = :city AND a.id = f.id AND a.anchor IS DISTINCT FROM f.anchor
    """
)


def reanchor(connection: Connection, city: City, class_name: str, surveys: Sequence[int]) -> None:
    """Ids whose root leaves the evidence go on in their track's next observation; they return with the root.

    Args:
        surveys: those that came into force or left it, after ``survey_class.in_force`` says so.
    """
    of_class = {"city": city.id, "class": class_name}
    # A survey of which nothing was ever made anchors nothing.
    known = [one for one in surveys if connection.execute(_KNOWN, {**of_class, "survey": one}).scalar()]
    if known:
        connection.execute(_REANCHOR, {**of_class, "surveys": known})


# --- naming ------------------------------------------------------------------------------------------------

_OF_HITS = """
    SELECT id, anchor FROM urban_inventory.asset
    WHERE city_id = %(city)s AND class = %(class)s AND
"""
_AMONG, _BETWEEN = "anchor = ANY(%(among)s)", "anchor BETWEEN %(least)s AND %(greatest)s"
_AMONG_FROM_GAPS = 4
"""Where observations are further apart than this on average, those between them are not worth reading."""
_LAST_ANCHOR = text("SELECT coalesce(max(anchor), 0) FROM urban_inventory.asset WHERE city_id = :city")
# What a decision verified goes on under its id while the imagery that showed it is withdrawn.
_OF_DECISIONS = text(
    """
    SELECT id, root_decision AS decision FROM urban_inventory.asset
    WHERE city_id = :city AND class = :class AND root_decision = ANY(CAST(:decisions AS bigint[]))
    UNION
    SELECT a.id, d.id FROM urban_inventory.decision d
    JOIN urban_inventory.asset a ON a.city_id = d.city_id AND a.public_id = d.asset AND a.class = :class
    WHERE d.city_id = :city AND d.id = ANY(CAST(:decisions AS bigint[])) AND d.kind IN ('verify', 'add')
        AND a.root_decision IS NULL AND NOT EXISTS (
            SELECT FROM urban_inventory.observation o
            JOIN urban_inventory.survey_class k
                ON k.survey_id = o.survey_id AND k.class = a.class AND k.in_force AND k.adequate
            WHERE o.city_id = a.city_id AND o.id = a.anchor)
    """
)
# OFFSET 0 keeps each look-up a look-up, as in ``features.py``: the few ids of a survey's rim are no reason to read all
# of a city's.
_OF_TRACKS = text(
    """
    WITH wanted AS (
        SELECT unnest(CAST(:carried AS bigint[])) AS id
        UNION
        SELECT b.id FROM urban_inventory.asset b
        WHERE b.city_id = :city AND b.alias_of = ANY(CAST(:carried AS bigint[]))
    )
    SELECT a.id, h.asset_id AS carrier, a.anchor
    FROM wanted
    CROSS JOIN LATERAL (
        SELECT id, class, anchor FROM urban_inventory.asset WHERE city_id = :city AND id = wanted.id OFFSET 0
    ) a
    CROSS JOIN LATERAL (
        SELECT asset_id FROM urban_inventory.asset_hit
        WHERE city_id = :city AND observation_id = a.anchor OFFSET 0
    ) h
    CROSS JOIN LATERAL (
        SELECT survey_id FROM urban_inventory.observation WHERE city_id = :city AND id = a.anchor OFFSET 0
    ) o
    JOIN urban_inventory.survey_class k
        ON k.survey_id = o.survey_id AND k.class = a.class AND k.in_force AND k.adequate
    """
)


def save_ids(
    connection: Connection, city: City, class_name: str, *, before: StoredStates, folded: Folded, since: int
) -> Integers:
    """Names the tracks that were folded, mints ids for those without one, notes aliases, links observations.

    Args:
        before: what the fold went on from, with ``asset_id``.
        since: microseconds: the instant from which it was folded.

    Returns:
        (tracks,) the asset of each track; −1 for those that were not folded, or are no more.
    """
    anchored, settled = _anchored(connection, city, class_name, before, folded, since)
    named = name_tracks(len(folded.told), anchored)
    asset_of_track = named.asset_of_track
    stands = folded.told & folded.stands
    relisted = np.flatnonzero(stands & ~folded.decided)
    held = Lookup(before.columns["track"], before.columns["asset_id"])
    asset_of_track[relisted] = held(folded.tracks["key"][relisted])
    fresh = np.flatnonzero(stands & (asset_of_track < 0))
    asset_of_track[fresh] = _mint(connection, city, class_name, folded, asset_of_track, fresh)
    asset_of_track[~stands] = -1
    _rename(connection, city, before, folded, asset_of_track)
    aliases = {one: other for one, other in named.aliases.items() if other is not None or one not in settled}
    _note_aliases(connection, city, aliases, folded, asset_of_track)
    _link_hits(connection, city, folded, asset_of_track)
    return asset_of_track


def _anchored(
    connection: Connection, city: City, class_name: str, before: StoredStates, folded: Folded, since: int
) -> tuple[Anchored, frozenset[int]]:
    """Every id that is anchored in a track that was folded: before ``since``, or in what it is made of since.

    The set holds ids that carry their track's name already and need no look whether they are aliases.
    """
    key = folded.tracks["key"]
    ids, rows, are_names = _from_before(connection, city, before, folded, since)
    settled = frozenset(ids.tolist()) if are_names else frozenset()
    parameters = {"city": city.id, "class": class_name}
    anchors = _anchors_among(connection, city, class_name, folded.hit_observation)
    track = Lookup(folded.hit_observation, folded.hit_track)(anchors["anchor"])
    ids = np.concatenate([ids, anchors["id"][track >= 0]])
    rows = np.concatenate([rows, track[track >= 0]])
    decided = np.flatnonzero((key < 0) & folded.decided & folded.stands)
    if len(decided):
        found = connection.execute(_OF_DECISIONS, {**parameters, "decisions": (-key[decided]).tolist()}).all()
        ids = np.concatenate([ids, _column([row.id for row in found])])
        by_key = Lookup(key[decided], decided)
        rows = np.concatenate([rows, by_key(_column([-row.decision for row in found]))])
    order = np.lexsort((rows, ids))
    ids, rows = ids[order], rows[order]
    first = np.ones(len(ids), bool)
    first[1:] = (ids[1:] != ids[:-1]) | (rows[1:] != rows[:-1])
    return Anchored(asset_id=ids[first], track=rows[first]), settled


def _anchors_among(
    connection: Connection, city: City, class_name: str, observations: Integers
) -> dict[str, Integers]:
    """Columns ``id`` and ``anchor`` of the assets anchored in these observations, and perhaps in others."""
    last = connection.execute(_LAST_ANCHOR, {"city": city.id}).scalar_one()
    # Nothing is anchored yet in what came since: in a first survey, in none.
    known = observations[observations <= last]
    if not len(known):
        return {"id": known, "anchor": known}
    asked: dict[str, Any] = {"city": city.id, "class": class_name}
    if len(known) * _AMONG_FROM_GAPS < int(known.max()) - int(known.min()):
        query, asked["among"] = _OF_HITS + _AMONG, known.tolist()
    else:
        query = _OF_HITS + _BETWEEN
        asked |= {"least": int(known.min()), "greatest": int(known.max())}
    return read_rows(connection, query, asked, {"id": pa.int64(), "anchor": pa.int64()})


def _from_before(
    connection: Connection, city: City, before: StoredStates, folded: Folded, since: int
) -> tuple[Integers, Integers, bool]:
    """Ids in observations that were not decided anew, the rows of their tracks, and whether all are names."""
    stored = before.columns
    nothing = np.empty(0, np.int64)
    if not len(stored["track"]):
        return nothing, nothing, True
    decided = np.flatnonzero(folded.decided)
    row = Lookup(folded.tracks["key"][decided], decided)(stored["track"])
    mine = np.flatnonzero(row >= 0)
    ids, rows = stored["asset_id"][mine], row[mine]
    if (stored["valid_from"] < since).all():
        # Nothing was known from ``since`` on: what names these tracks lies before it, aliases and all.
        return ids, rows, True
    found = connection.execute(_OF_TRACKS, {"city": city.id, "carried": np.unique(ids).tolist()}).all()
    kept = ~np.isin(_column([one.anchor for one in found]), folded.decided_observations)
    own = Lookup(ids, rows)
    of_id, of_carrier = (own(_column([getattr(one, name) for one in found])) for name in ("id", "carrier"))
    at = np.where(of_id >= 0, of_id, of_carrier)
    kept &= at >= 0
    return _column([one.id for one in found])[kept], at[kept], False


def _mint(
    connection: Connection,
    city: City,
    class_name: str,
    folded: Folded,
    asset_of_track: Integers,
    fresh: Integers,
) -> Integers:
    """New ids for tracks, in their order."""
    if not len(fresh):
        return fresh
    ids = draw_numbers(connection, "asset_id_seq", len(fresh))
    # In the order of the observations, and so of the ground: see ``surveys.insert_observations``.
    ids = ids[np.argsort(np.argsort(folded.tracks["key"][fresh], kind="stable"), kind="stable")]
    known = asset_of_track.copy()
    known[fresh] = ids
    replaces = folded.tracks["replaces"][fresh]
    copy_rows(
        connection,
        asset,
        {
            "city_id": city.id,
            "id": ids,
            "public_id": pa.array(_public_ids(len(ids))),
            "class": class_name,
            "root_observation": numbers(folded.tracks["root_observation"][fresh]),
            "anchor": numbers(folded.tracks["root_observation"][fresh]),
            "root_decision": numbers(folded.tracks["root_decision"][fresh]),
            "replaces": numbers(np.where(replaces >= 0, known[replaces], -1)),
        },
    )
    return ids


def _rename(
    connection: Connection, city: City, before: StoredStates, folded: Folded, asset_of_track: Integers
) -> None:
    """States of tracks that go under another id now, from before the fold's start on."""
    stored = before.columns
    if not folded.static or not len(stored["track"]):
        return
    row = Lookup(folded.tracks["key"], np.arange(len(folded.told)))(stored["track"])
    named = np.where((row >= 0), asset_of_track[np.maximum(row, 0)], -1)
    other = np.flatnonzero((named >= 0) & (named != stored["asset_id"]))
    if not len(other):
        return
    changed = np.unique(
        np.column_stack([stored["track"][other], stored["asset_id"][other], named[other]]), axis=0
    )
    parameters = {
        "city": city.id,
        "tracks": changed[:, 0].tolist(),
        "old": changed[:, 1].tolist(),
        "new": changed[:, 2].tolist(),
    }
    with leaves.held_triggers(connection):
        connection.execute(_RENAME_STATES, parameters)
    connection.execute(_RENAME_HITS, parameters)
    connection.execute(_RENAME_ALIASES, parameters)


_PAIRS = """
    unnest(CAST(:tracks AS bigint[]), CAST(:old AS bigint[]), CAST(:new AS bigint[])) AS said(track, old, new)
"""
_RENAME_STATES = text(
    f"""
    UPDATE urban_inventory.asset_state s SET asset_id = said.new FROM {_PAIRS}
    WHERE s.city_id = :city AND s.asset_id = said.old AND s.track = said.track
    """
)
# Observations of before the fold's start; those since are linked anew in any case.
_RENAME_HITS = text(
    f"""
    UPDATE urban_inventory.asset_hit h SET asset_id = said.new FROM {_PAIRS}
    WHERE h.city_id = :city AND h.asset_id = said.old
    """
)
_RENAME_ALIASES = text(
    f"""
    UPDATE urban_inventory.asset a SET alias_of = said.new FROM {_PAIRS}
    WHERE a.city_id = :city AND (a.alias_of = said.old OR a.id = said.old) AND a.id <> said.new
        AND NOT EXISTS (SELECT FROM urban_inventory.asset_state s
                        WHERE s.city_id = :city AND s.asset_id = a.id AND s.merged_into IS NOT NULL)
    """
)


def _note_aliases(
    connection: Connection,
    city: City,
    aliases: dict[int, int | None],
    folded: Folded,
    asset_of_track: Integers,
) -> None:
    heirs = folded.tracks["merged_into"].copy()
    for _ in range(len(heirs)):
        further = np.where(heirs >= 0, heirs[np.maximum(heirs, 0)], -1)
        if (further < 0).all():
            break
        heirs = np.where(further >= 0, further, heirs)
    merged = np.flatnonzero((heirs >= 0) & folded.decided & folded.stands)
    aliases = {
        **aliases,
        **dict(zip(asset_of_track[merged].tolist(), asset_of_track[heirs[merged]].tolist(), strict=True)),
    }
    if aliases:
        told = {"city": city.id, "aliases": list(aliases), "carried": list(aliases.values())}
        connection.execute(_ALIAS, told)
        connection.execute(_ALIAS_OF_ALIAS, told)


_ALIAS = text(
    """
    UPDATE urban_inventory.asset a SET alias_of = said.carried
    FROM unnest(CAST(:aliases AS bigint[]), CAST(:carried AS bigint[])) AS said(alias, carried)
    WHERE a.city_id = :city AND a.id = said.alias AND a.alias_of IS DISTINCT FROM said.carried
    """
)

# An alias leads to the id that carries the track, never to another alias.
_ALIAS_OF_ALIAS = text(
    """
    UPDATE urban_inventory.asset a SET alias_of = c.alias_of FROM urban_inventory.asset c
    WHERE a.city_id = :city AND a.alias_of = ANY(CAST(:aliases AS bigint[]))
        AND c.city_id = :city AND c.id = a.alias_of AND c.alias_of IS NOT NULL AND c.alias_of <> a.id
    """
)

_LAST_LINKED = text(
    "SELECT coalesce(max(observation_id), 0) FROM urban_inventory.asset_hit WHERE city_id = :city"
)
_LINK = text(
    """
    INSERT INTO urban_inventory.asset_hit (city_id, observation_id, asset_id)
    SELECT :city, observation_id, asset_id FROM urban_inventory.staging_hit WHERE job = :job
    ON CONFLICT (city_id, observation_id) DO UPDATE SET asset_id = excluded.asset_id
    WHERE asset_hit.asset_id <> excluded.asset_id
    """
)
# Seen by a scene that does not own the ground, and by no other: in force, and of no track.
_UNLINK = text(
    """
    DELETE FROM urban_inventory.asset_hit
    WHERE city_id = :city AND observation_id = ANY(CAST(:observations AS bigint[]))
    """
)
_CLEAR_HITS = text("DELETE FROM urban_inventory.staging_hit WHERE job = :job")


def _link_hits(connection: Connection, city: City, folded: Folded, asset_of_track: Integers) -> None:
    """Links are kept while evidence is withdrawn, so that its id finds its way back; those that hold no more go."""
    of_none = np.setdiff1d(folded.decided_observations, folded.hit_observation)
    if len(of_none):
        connection.execute(_UNLINK, {"city": city.id, "observations": of_none.tolist()})
    if not len(folded.hit_observation):
        return
    order = np.argsort(folded.hit_observation)
    observations, assets = folded.hit_observation[order], asset_of_track[folded.hit_track[order]]
    last = connection.execute(_LAST_LINKED, {"city": city.id}).scalar_one()
    known = int(np.searchsorted(observations, last, side="right"))
    if known:
        job = next_job(connection)
        links = {"observation_id": observations[:known], "asset_id": assets[:known]}
        copy_rows(connection, staging_hit, {"job": job, **links})
        connection.execute(_LINK, {"city": city.id, "job": job})
        connection.execute(_CLEAR_HITS, {"job": job})
    # Of those that came since nothing is linked: there is nothing to compare with.
    links = {"observation_id": observations[known:], "asset_id": assets[known:]}
    copy_rows(connection, asset_hit, {"city_id": city.id, **links})


def successor_roots(connection: Connection, city: City, old_survey: int, new_survey: int) -> None:
    """Roots of a superseded survey pass to the observations of the same boxes in its successor (R7)."""
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
        .values(root_observation=new.c.id, anchor=new.c.id)
    )


def _column(values: list[int]) -> Integers:
    return np.array(values, np.int64)

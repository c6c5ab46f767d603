"""The tables, as the migrations make them (a test proves that both agree).

Data of a city lies in tables partitioned by ``city_id``; their partitions are made and dropped by the owner's
functions ``city_create`` and ``city_drop``. Geometry is EPSG:4326 for exchange; ``x`` and ``y`` are the
position in the city's metric CRS, where distances are computed.

Evidence: scene → survey → observation, and decision. Derived by the fold and rewritten by it alone:
asset_state, asset_hit, membership, area_count_delta, leaf with its list and deltas, coverage. History is appended,
never changed.
"""

from typing import Any

from geoalchemy2 import Geometry
from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import DATERANGE, JSONB, TIMESTAMP, ExcludeConstraint

SCHEMA = "urban_inventory"

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_name)s_idx",
    },
)

Instant = TIMESTAMP(timezone=True)


def _point() -> Geometry:
    return Geometry("POINT", srid=4326, spatial_index=False)


def _polygons() -> Geometry:
    return Geometry("MULTIPOLYGON", srid=4326, spatial_index=False)


def _row_id(table: str, comment: str | None = None) -> Column[int]:
    # A sequence by hand: before PostgreSQL 17 partitioned tables cannot have identity columns.
    numbers = Sequence(f"{table}_id_seq", metadata=metadata)
    return Column(
        "id", BigInteger, numbers, server_default=numbers.next_value(), nullable=False, comment=comment
    )


def _recorded_at() -> Column[object]:
    return Column("recorded_at", Instant, nullable=False, server_default=func.now())


def _city_id(**options: object) -> Column[int]:
    return Column("city_id", Integer, ForeignKey(f"{SCHEMA}.city.id"), nullable=False, **options)  # type: ignore[arg-type]


def _own_city() -> Column[int]:
    # No foreign key: a partition takes rows of its own city alone and goes with it; it would be checked row by row.
    return Column("city_id", Integer, nullable=False)


city = Table(
    "city",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("code", Text, nullable=False, unique=True, comment="the name in addresses: puer"),
    Column("name", Text, nullable=False),
    Column("time_zone", Text, nullable=False, comment="IANA name; a date is a whole local day in it"),
    Column("metric_crs", Text, nullable=False, comment="authority:code in which distances are computed"),
    Column("boundary", _polygons(), nullable=False),
    Column("boundary_given", Boolean, nullable=False, server_default=text("false")),
    _recorded_at(),
    Column(
        "version",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="another one after every change of anything of the city",
    ),
    CheckConstraint("code ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name="code"),
)

asset_class = Table(
    "asset_class",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("label", JSONB, nullable=False),
    CheckConstraint("kind in ('static', 'mobile')", name="kind"),
    comment="copy of the taxonomy, so that SQL clients can join it",
)

city_class = Table(
    "city_class",
    metadata,
    _city_id(),
    Column("class", Text, ForeignKey(f"{SCHEMA}.asset_class.name"), nullable=False),
    PrimaryKeyConstraint("city_id", "class"),
    comment="the classes that a city counts",
)

model_choice = Table(
    "model_choice",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _city_id(),
    Column("class", Text, ForeignKey(f"{SCHEMA}.asset_class.name"), nullable=False),
    Column("model", Text, nullable=False),
    _recorded_at(),
    comment="which model a city used for a class, newest last (R3); before any choice the taxonomy's",
)

department = Table(
    "department",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    _city_id(),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    UniqueConstraint("city_id", "code"),
)

principal = Table(
    "principal",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    _recorded_at(),
    CheckConstraint("kind in ('person', 'key')", name="kind"),
)

role_grant = Table(
    "role_grant",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("principal_id", Integer, ForeignKey(f"{SCHEMA}.principal.id"), nullable=False),
    Column("role", Text, nullable=False),
    _city_id(),
    Column("area_level", Text),
    Column("area_code", Text),
    Column("department_id", Integer, ForeignKey(f"{SCHEMA}.department.id")),
    _recorded_at(),
    CheckConstraint("role in ('reader', 'field', 'editor', 'admin')", name="role"),
    CheckConstraint("(area_level is null) = (area_code is null)", name="area"),
    comment="scope of a role: city × area × department; null is all",
)

source = Table(
    "source",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    _city_id(),
    Column("name", Text, nullable=False),
    Column("department_id", Integer, ForeignKey(f"{SCHEMA}.department.id")),
    Column("licence", Text),
    Column("attribution", Text),
    UniqueConstraint("city_id", "name"),
)

area_version = Table(
    "area_version",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _city_id(),
    Column("level", Text, nullable=False),
    Column("level_rank", SmallInteger, nullable=False, comment="0 is the top level"),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("parent_level", Text),
    Column("parent_code", Text),
    Column("department_id", Integer, ForeignKey(f"{SCHEMA}.department.id")),
    Column("valid", DATERANGE, nullable=False, comment="city-local dates; the first has no lower bound"),
    Column("geom", _polygons(), nullable=False),
    Column("area_m2", Double, nullable=False),
    _recorded_at(),
    CheckConstraint("not isempty(valid)", name="valid"),
    ExcludeConstraint(
        (text("city_id"), "="),
        (text("level"), "="),
        (text("code"), "="),
        (text("valid"), "&&"),
        name="area_version_one_version_a_day",
        using="gist",
    ),
    Index("area_version_geom_idx", "geom", postgresql_using="gist"),
    comment="one version of one area (R12); not partitioned: exclusion constraints cannot be",
)

campaign = Table(
    "campaign",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _city_id(),
    Column("source_id", Integer, ForeignKey(f"{SCHEMA}.source.id"), nullable=False),
    Column("name", Text, nullable=False, comment="the local date unless named"),
    UniqueConstraint("city_id", "source_id", "name"),
    comment="one look at the ground by one source (R4); in effect on its last scene's date",
)

scene = Table(
    "scene",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _city_id(),
    Column("public_id", Text, nullable=False),
    Column("campaign_id", BigInteger, ForeignKey(f"{SCHEMA}.campaign.id"), nullable=False),
    Column("source_id", Integer, ForeignKey(f"{SCHEMA}.source.id"), nullable=False),
    Column("path", Text, comment="where the file lay when last seen; null once purged"),
    Column("pixel_hash", Text, nullable=False),
    Column("georeference_hash", Text, nullable=False),
    Column("taken_at", Instant, nullable=False),
    Column("kind", Text, nullable=False),
    Column("ground_resolution_m", Double, nullable=False),
    Column("width_px", Integer, nullable=False),
    Column("height_px", Integer, nullable=False),
    Column("footprint", _polygons(), nullable=False, comment="the ground of its valid pixels"),
    Column("licence", Text),
    Column("attribution", Text),
    Column("superseded_by", BigInteger, ForeignKey(f"{SCHEMA}.scene.id")),
    Column("purged_at", Instant),
    _recorded_at(),
    UniqueConstraint("city_id", "public_id"),
    CheckConstraint("kind in ('nadir', 'oblique', 'street', 'fixed')", name="kind"),
    Index(
        "scene_one_in_force_idx",
        "city_id",
        "pixel_hash",
        unique=True,
        postgresql_where=text("superseded_by is null and purged_at is null"),
    ),
    Index("scene_footprint_idx", "footprint", postgresql_using="gist"),
)

survey = Table(
    "survey",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _city_id(),
    Column("public_id", Text, nullable=False),
    Column("scene_id", BigInteger, ForeignKey(f"{SCHEMA}.scene.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("settings_key", Text, nullable=False),
    Column("card", JSONB, nullable=False, comment="the card as it was: its parameters are constants"),
    Column("classes", ARRAY(Text), nullable=False),
    Column("surveyed", _polygons(), nullable=False),
    Column("windows", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("withdrawn_at", Instant),
    _recorded_at(),
    UniqueConstraint("city_id", "public_id"),
    UniqueConstraint("scene_id", "model_sha256", "settings_key"),
    Index("survey_surveyed_idx", "surveyed", postgresql_using="gist"),
)

survey_class = Table(
    "survey_class",
    metadata,
    Column("survey_id", BigInteger, ForeignKey(f"{SCHEMA}.survey.id", ondelete="CASCADE"), nullable=False),
    Column("class", Text, ForeignKey(f"{SCHEMA}.asset_class.name"), nullable=False),
    Column("in_force", Boolean, nullable=False, comment="derived (R3)"),
    Column("adequate", Boolean, nullable=False, comment="may testify to absence (R5)"),
    Column(
        "folded_at", Instant, comment="instant of the look that the stored states hold it for; null: none"
    ),
    Column("folded_campaign", BigInteger, comment="that look's campaign; its scene may have left it since"),
    Column("shift_x_m", Double, comment="shift of its scene that the stored states are free of (R7)"),
    Column("shift_y_m", Double),
    Column("shift_pairs", Integer, comment="pairs that show the shift; null: cannot tell"),
    PrimaryKeyConstraint("survey_id", "class"),
)

_BY_CITY: dict[str, Any] = {"postgresql_partition_by": "LIST (city_id)"}

observation = Table(
    "observation",
    metadata,
    _own_city(),
    _row_id("observation"),
    Column("survey_id", BigInteger, ForeignKey(f"{SCHEMA}.survey.id"), nullable=False),
    Column("class", Text, nullable=False),
    Column("geom", _point(), nullable=False),
    Column("x", Double, nullable=False),
    Column("y", Double, nullable=False),
    Column("error_m", REAL, nullable=False),
    Column("width_m", REAL, nullable=False),
    Column("height_m", REAL, nullable=False),
    Column("score", REAL, nullable=False),
    Column("plausible", Boolean, nullable=False, comment="size within the class's range (R6)"),
    Column("box_px", ARRAY(REAL), nullable=False),
    Column("cell", BigInteger, nullable=False, comment="square kilometre of (x, y), see domain/cells.py"),
    PrimaryKeyConstraint("city_id", "id"),
    CheckConstraint("error_m > 0 and width_m > 0 and height_m > 0", name="sizes"),
    CheckConstraint("score between 0 and 1", name="score"),
    Index("observation_survey_idx", "survey_id", "class", "cell"),
    Index("observation_geom_idx", "geom", postgresql_using="spgist"),
    **_BY_CITY,
)

decision = Table(
    "decision",
    metadata,
    _own_city(),
    _row_id("decision", "the recorded sequence"),
    Column("public_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("class", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("geom", _point(), nullable=False, comment="where the decision speaks of (R11)"),
    Column("x", Double, nullable=False),
    Column("y", Double, nullable=False),
    Column("gate_m", REAL, nullable=False),
    Column("asset", Text, comment="the public id that the person named, or that an addition met"),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("author", Text, nullable=False),
    Column("reason", Text),
    Column("retracts", BigInteger),
    Column("folded", Boolean, nullable=False, server_default=text("false"), comment="in the stored states"),
    _recorded_at(),
    PrimaryKeyConstraint("city_id", "id"),
    UniqueConstraint("city_id", "public_id"),
    CheckConstraint(
        "kind in ('verify', 'reject', 'move', 'reclassify', 'describe', 'add', 'merge', 'split', 'retract')",
        name="kind",
    ),
    CheckConstraint("(kind = 'retract') = (retracts is not null)", name="retracts"),
    Index("decision_place_idx", "class", "x", "y"),
    Index("decision_unfolded_idx", "class", postgresql_where=text("not folded")),
    **_BY_CITY,
)

asset = Table(
    "asset",
    metadata,
    _own_city(),
    _row_id("asset"),
    Column("public_id", Text, nullable=False),
    Column("class", Text, nullable=False, comment="the class it was minted as"),
    Column("root_observation", BigInteger, comment="the observation that minted it (R7)"),
    Column("root_decision", BigInteger, comment="or the decision"),
    Column(
        "anchor", BigInteger, comment="the root or, while it is no evidence, the track's next observation"
    ),
    Column("alias_of", BigInteger, comment="the older id of the same track, while they share it"),
    Column("replaces", BigInteger),
    _recorded_at(),
    PrimaryKeyConstraint("city_id", "id"),
    UniqueConstraint("city_id", "public_id"),
    UniqueConstraint("city_id", "root_observation"),
    CheckConstraint("(root_observation is null) <> (root_decision is null)", name="root"),
    CheckConstraint("alias_of <> id", name="alias"),
    Index(
        "asset_root_decision_idx",
        "city_id",
        "root_decision",
        unique=True,
        postgresql_where=text("root_decision is not null"),
    ),
    Index("asset_anchor_idx", "anchor"),
    Index("asset_alias_idx", "alias_of", postgresql_where=text("alias_of is not null")),
    comment="identities: never deleted, never used twice",
    **_BY_CITY,
)

asset_hit = Table(
    "asset_hit",
    metadata,
    _own_city(),
    Column("observation_id", BigInteger, nullable=False),
    Column("asset_id", BigInteger, nullable=False),
    PrimaryKeyConstraint("city_id", "observation_id"),
    Index("asset_hit_asset_idx", "asset_id"),
    comment="which observations an asset's track was last made of",
    **_BY_CITY,
)


def _state_columns(*, commented: bool = False) -> list[Column[Any]]:
    """What is said of an asset for a time; from ``track`` on it is the fold's own memory (domain/tracks.py)."""
    columns: list[Column[Any]] = [
        Column("asset_id", BigInteger, comment="null for mobile classes, which have no identity (R10)"),
        Column("observation_id", BigInteger, comment="the newest evidence, if an observation"),
        Column("decision_id", BigInteger, comment="the newest evidence, if a decision"),
        Column("survey_id", BigInteger),
        Column("class", Text, nullable=False),
        Column("valid_from", Instant, nullable=False),
        Column("valid_to", Instant, comment="null: until now"),
        Column("listed", Boolean, nullable=False, comment="counted as present (R8)"),
        Column("status", Text, nullable=False),
        Column("verified", Boolean, nullable=False),
        Column("review", Boolean, nullable=False, comment="later imagery asks a person again (R11)"),
        Column("probability", REAL, nullable=False),
        Column("geom", _point(), nullable=False),
        Column("x", Double, nullable=False),
        Column("y", Double, nullable=False),
        Column("error_m", REAL, nullable=False),
        Column("width_m", REAL, nullable=False),
        Column("height_m", REAL, nullable=False),
        Column("score", REAL),
        Column("hits", SmallInteger, nullable=False),
        Column("first_seen", Instant, nullable=False),
        Column("last_seen", Instant, nullable=False),
        Column("first_missed", Instant, comment="first adequate look without a hit since last_seen (R9)"),
        Column("details", JSONB),
        Column("digest", BigInteger, nullable=False, comment="hash of the content, for comparing folds"),
        Column("change_id", BigInteger, comment="the change that said so"),
        Column("track", BigInteger, nullable=False, comment="observation that minted it, or −decision"),
        Column("minted_as", Text, nullable=False, comment="class of the evidence"),
        Column("cell", BigInteger, nullable=False, comment="square kilometre of (x, y)"),
        Column("look", BigInteger, comment="campaign: the newest adequate look at its ground"),
        Column("hit", Boolean, nullable=False, comment="whether that look saw it"),
        Column("placed", Boolean, nullable=False, comment="a person said where it is (R11)"),
        Column("felled", Boolean, nullable=False, comment="a person said that it is gone (R9)"),
        Column("misses", SmallInteger, nullable=False, comment="adequate misses since the last hit"),
        Column("model", BigInteger, comment="number of the model that last saw it"),
        Column("lasting", REAL, nullable=False, comment="if an error: how probably one that repeats (R8)"),
        Column("content", BigInteger, nullable=False, comment="hash of the newest hit"),
        Column("merged_into", BigInteger, comment="track of which it is a part (R11)"),
        Column("replaces", BigInteger, comment="track whose place it has taken (R9)"),
    ]
    for column in columns:
        column.comment = column.comment if commented else None
    return columns


SQUARE_OF_PLACE = "(floor(ST_X(geom) * 50)::integer * 18000 + floor(ST_Y(geom) * 50)::integer)"
"""The fiftieth of a degree that holds a place, by number; read by ``asset_pages.py``."""

asset_state = Table(
    "asset_state",
    metadata,
    _own_city(),
    _row_id("asset_state"),
    *_state_columns(commented=True),
    PrimaryKeyConstraint("city_id", "id"),
    CheckConstraint("status in ('present', 'doubtful', 'gone', 'rejected')", name="status"),
    CheckConstraint("valid_to is null or valid_to > valid_from", name="valid"),
    CheckConstraint("probability between 0 and 1", name="probability"),
    CheckConstraint("(asset_id is null) <= (observation_id is not null)", name="subject"),
    Index("asset_state_asset_idx", "asset_id", "valid_from"),
    Index("asset_state_cell_idx", "minted_as", "cell"),
    # A tree by space partitions takes a point in a tenth of the time of one by boxes, and finds it as fast.
    Index(
        "asset_state_now_idx",
        "geom",
        postgresql_using="spgist",
        postgresql_where=text("listed and valid_to is null"),
    ),
    Index("asset_state_geom_idx", "geom", postgresql_using="spgist"),
    Index("asset_state_next_idx", text(SQUARE_OF_PLACE), "asset_id"),
    comment="what the fold says of every asset, by as-of time (R1)",
    **_BY_CITY,
)

look_cell = Table(
    "look_cell",
    metadata,
    _own_city(),
    Column("class", Text, nullable=False),
    Column("campaign_id", BigInteger, nullable=False),
    Column("cell", BigInteger, nullable=False),
    Column("hits", BigInteger, nullable=False, comment="observations on ground that their own scene owns"),
    Column("area_m2", Double, nullable=False, comment="surveyed ground"),
    PrimaryKeyConstraint("city_id", "class", "campaign_id", "cell"),
    comment="what a look saw in each square kilometre: how its ground is divided for listing (R8)",
    **_BY_CITY,
)

membership = Table(
    "membership",
    metadata,
    _own_city(),
    Column("state_id", BigInteger, nullable=False),
    Column("area_version_id", BigInteger, nullable=False),
    Column("valid_from", Instant, nullable=False, comment="-infinity: always"),
    Column("valid_to", Instant, comment="null: until now"),
    PrimaryKeyConstraint("city_id", "area_version_id", "state_id", "valid_from"),
    Index("membership_state_idx", "state_id"),
    comment="the area version of each level that holds a state's position, and when, if the state is valid (R12)",
    **_BY_CITY,
)

area_count_delta = Table(
    "area_count_delta",
    metadata,
    _own_city(),
    Column("area_version_id", BigInteger, nullable=False, comment="0 is the whole city"),
    Column("class", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("listed", Integer, nullable=False, comment="change of the count at this as-of instant"),
    Column("verified", Integer, nullable=False),
    Index(
        "area_count_delta_idx", "area_version_id", "class", "at", postgresql_include=["listed", "verified"]
    ),
    comment="append-only; the count as of T is the sum of what happened at or before T",
    **_BY_CITY,
)

leaf = Table(
    "leaf",
    metadata,
    _own_city(),
    Column("class", Text, nullable=False),
    Column(
        "key",
        BigInteger,
        nullable=False,
        comment="the cell's corner on the Morton curve, see domain/quadtree.py",
    ),
    Column(
        "places",
        LargeBinary,
        nullable=False,
        comment="an event after the other: 1e-7 degrees east and north of the corner; uint16, or uint32 in large cells",
    ),
    Column(
        "kinds",
        LargeBinary,
        nullable=False,
        comment="a kind of event after the other: instant (int64, microseconds since 1970), change of the count, "
        "of the verified (int16), number of events (uint32)",
    ),
    Column(
        "kind_of",
        LargeBinary,
        nullable=False,
        comment="of each event (uint16); empty where there is one kind",
    ),
    PrimaryKeyConstraint("city_id", "class", "key"),
    comment="what is counted, packed by place: the exact count in any polygon reads few rows of it",
    **_BY_CITY,
)

leaf_list = Table(
    "leaf_list",
    metadata,
    _own_city(),
    Column("class", Text, nullable=False),
    Column("leaves", LargeBinary, nullable=False, comment="all leaves of the class as columns"),
    Column("packed", BigInteger, nullable=False, comment="the city's version that packed them"),
    PrimaryKeyConstraint("city_id", "class"),
    **_BY_CITY,
)

leaf_delta = Table(
    "leaf_delta",
    metadata,
    _own_city(),
    Column("class", Text, nullable=False),
    Column("lon", Integer, nullable=False, comment="1e-7 degree"),
    Column("lat", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Column(
        "listed", SmallInteger, nullable=False, comment="change of the count at this place and as-of instant"
    ),
    Column("verified", SmallInteger, nullable=False),
    comment="append-only; what the leaves do not hold yet",
    **_BY_CITY,
)

coverage = Table(
    "coverage",
    metadata,
    _own_city(),
    Column(
        "area_version_id", BigInteger, nullable=False, comment="0 the whole city, −rank−1 outside a level"
    ),
    Column("class", Text, nullable=False),
    Column("at", Instant, nullable=False, comment="from this as-of instant on"),
    Column("share", Double, nullable=False),
    Column("oldest_look", Instant, nullable=False),
    Column("newest_look", Instant, nullable=False),
    Column("models", ARRAY(Text), nullable=False, comment="SHA-256 of the newest looks' models"),
    PrimaryKeyConstraint("city_id", "area_version_id", "class", "at"),
    CheckConstraint("share > 0 and share <= 1", name="share"),
    comment="share of an area surveyed adequately for a class, in steps (R5, R13)",
    **_BY_CITY,
)

change = Table(
    "change",
    metadata,
    _own_city(),
    _row_id("change"),
    _recorded_at(),
    Column("cause", Text, nullable=False, comment="what was done"),
    Column("subject", Text, comment="to what: a scene, a survey, a decision, a model"),
    Column("author", Text, nullable=False),
    PrimaryKeyConstraint("city_id", "id"),
    comment="what made the stored states change (R14)",
    **_BY_CITY,
)

history = Table(
    "history",
    metadata,
    _own_city(),
    Column("id", BigInteger, nullable=False),
    *_state_columns(),
    Column("ended_by", BigInteger, nullable=False, comment="the change since which it is no longer said"),
    PrimaryKeyConstraint("city_id", "id"),
    Index("history_asset_idx", "asset_id"),
    comment="states that are no longer said (R14). What was known at R: what was said by then and not ended yet; "
    "each state lasted until the next one of its track",
    **_BY_CITY,
)

scene_log = Table(
    "scene_log",
    metadata,
    _own_city(),
    _row_id("scene_log"),
    _recorded_at(),
    Column("event", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("author", Text, nullable=False),
    PrimaryKeyConstraint("city_id", "id"),
    comment="what was said about evidence: stored, withdrawn, restored, redated, located, purged, chosen",
    **_BY_CITY,
)

PARTITIONED: tuple[str, ...] = tuple(
    table.name for table in metadata.sorted_tables if table.dialect_options["postgresql"]["partition_by"]
)

# Permanent and unlogged: COPY lands here and set-based SQL carries on, so that the service needs neither
# TEMP nor COPY into tables under row policies. ``job`` keeps concurrent writers apart.
staging_observation = Table(
    "staging_observation",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("survey_id", BigInteger, nullable=False),
    Column("class", Text, nullable=False),
    Column("lon", Double, nullable=False),
    Column("lat", Double, nullable=False),
    Column("x", Double, nullable=False),
    Column("y", Double, nullable=False),
    Column("error_m", REAL, nullable=False),
    Column("width_m", REAL, nullable=False),
    Column("height_m", REAL, nullable=False),
    Column("score", REAL, nullable=False),
    Column("plausible", Boolean, nullable=False),
    Column("x_min", REAL, nullable=False),
    Column("y_min", REAL, nullable=False),
    Column("x_max", REAL, nullable=False),
    Column("y_max", REAL, nullable=False),
    Column("cell", BigInteger, nullable=False),
    Index("staging_observation_job_idx", "job"),
    prefixes=["UNLOGGED"],
)

staging_end = Table(
    "staging_end",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("state_id", BigInteger, nullable=False),
    Column("removed", Boolean, nullable=False),
    Column("valid_to", Instant, comment="of a state that stays: where it ends now"),
    Index("staging_end_job_idx", "job"),
    prefixes=["UNLOGGED"],
)

staging_hit = Table(
    "staging_hit",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("observation_id", BigInteger, nullable=False),
    Column("asset_id", BigInteger, nullable=False),
    Index("staging_hit_job_idx", "job"),
    prefixes=["UNLOGGED"],
)

job_number = Sequence("job_number_seq", metadata=metadata)

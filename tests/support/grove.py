"""A small city for laws: trees in groups within each other's gates, looks that overlap partly, decisions.

``Grove`` does to its city what users do, by use cases, each with small numbers as arguments, so that
hypothesis and random walks can drive it. What a user would be refused is refused, and answered with False.
The checks at the end say what must hold after any series of such steps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from sqlalchemy import text

from detection.errors import CallerError
from detection.models import ModelCard
from detection.taxonomy import AssetClass, ClassKind, Taxonomy
from inventory import evidence_changes
from inventory.boundaries import AreaFile
from inventory.counting import OUTSIDE, count
from inventory.decisions import NewDecision, decide
from inventory.domain.evidence import NEVER, DecisionKind, Evidence, to_micros
from inventory.domain.fold import STATUSES, fold
from inventory.domain.places import City, area_of_points, versions_by_level
from inventory.onboarding import CityRequest, add_city
from inventory.store import cities, evidence, leaves
from inventory.store.database import Connection, Database
from inventory.store.known import UNKEPT, KnownCity
from inventory.store.states import end_of_day
from tests.support.surveys import (
    CANOPIES,
    CARDS,
    CROWNS,
    WHEELS,
    FakeSurvey,
    Stored,
    database_clock,
    make_seen,
    make_survey,
    make_taxonomy,
    model_of,
    store_surveys,
)

CODE = "grove"
UTM = "EPSG:32612"
ZONE = ZoneInfo("America/Denver")
BASE = (500_000.0, 4_950_000.0)
"""South-west corner, on the grid of 1 km cells."""
WIDTH_M, HEIGHT_M = 3_000.0, 2_000.0

DAYS = tuple(
    datetime(*day, 12, tzinfo=ZONE)
    for day in ((2020, 5, 1), (2021, 5, 1), (2021, 5, 2), (2022, 5, 1), (2023, 5, 1), (2024, 5, 1))
)
"""When looks happen; decisions may be of the same instants."""
GROUNDS: tuple[shapely.Geometry, ...] = (
    shapely.box(0, 0, WIDTH_M, HEIGHT_M),
    shapely.box(0, 0, 1_700, HEIGHT_M),
    shapely.box(1_300, 0, WIDTH_M, HEIGHT_M),
    shapely.box(800, 500, 2_200, 1_500),
    shapely.box(1_000, 0, 2_000, 1_000),
    # A hole without data.
    shapely.box(0, 0, WIDTH_M, HEIGHT_M) - shapely.box(1_200, 400, 1_900, 1_300),
    shapely.box(2_000, 1_000, WIDTH_M, HEIGHT_M),
)
"""Ground that looks survey, from the south-west corner: whole, parts that overlap, a hole, cells."""
SOURCES = ("plane", "drone")
# Groups of trees where it is awkward: on borders of ground, in the hole, across a border of cells.
_AWKWARD = (
    (1_700, 700),
    (1_300, 1_200),
    (1_000, 300),
    (2_000, 1_000),
    (1_500, 800),
    (1_203, 402),
    (2_500, 500),
)
_SPOTS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What stands in a grove: trees with crowns, and bushes that look like trees; (n, 2) and (n,)."""

    trees: NDArray[np.float64]
    crown_m: NDArray[np.float64]
    bushes: NDArray[np.float64]


def plant(seed: int, *, groups: int = 16) -> Planted:
    """Groups of one to four trees, 2.5 to 7 m apart: neighbours compete for hits."""
    random = np.random.default_rng(seed)
    free = random.uniform((50, 50), (WIDTH_M - 50, HEIGHT_M - 50), (groups - _SPOTS, 2))
    trees: list[NDArray[np.float64]] = []
    for centre in [*np.array(_AWKWARD, float), *free]:
        towards, apart = random.uniform(0, 2 * np.pi), random.uniform(2.5, 7)
        step = np.array([np.cos(towards), np.sin(towards)]) * apart
        trees += [centre + step * number for number in range(random.integers(1, 5))]
    places = np.array(trees)
    near = places[random.permutation(len(places))[: len(places) // 3]]
    return Planted(
        trees=places,
        crown_m=random.uniform(3, 9, len(places)),
        bushes=near + random.uniform(3, 9, (len(near), 2)),
    )


def look_at(
    planted: Planted,
    ground: shapely.Geometry,
    taken_at: datetime,
    *,
    seed: int,
    card: ModelCard = CROWNS,
    recall: float = 0.75,
    shift_m: tuple[float, float] = (0.0, 0.0),
    crown_scale: float = 1.0,
    **options: Any,
) -> FakeSurvey:
    """A survey of part of a grove: some trees, some bushes, each a little off; cars for a model of cars."""
    random = np.random.default_rng([seed, crc32(shapely.to_wkb(ground))])
    if card.output.classes == WHEELS.output.classes:
        things, sizes, name = random.uniform(0, (WIDTH_M, HEIGHT_M), (12, 2)), np.full(12, 4.5), "car"
    else:
        seen = random.random(len(planted.trees)) < recall
        fooled = random.random(len(planted.bushes)) < 0.4
        things = np.vstack([planted.trees[seen], planted.bushes[fooled]])
        sizes = np.concatenate([planted.crown_m[seen], np.full(fooled.sum(), 3.0)]) * crown_scale
        name = "tree"
    places = things + random.normal(0, 0.5, things.shape) + shift_m
    inside = shapely.contains_xy(ground, places[:, 0], places[:, 1])
    n = int(inside.sum())
    observations = make_seen(
        places[inside] + BASE,
        class_name=name,
        size_m=np.maximum(sizes[inside] * random.uniform(0.9, 1.1, n), 1.0),
        score=random.uniform(0.3, 0.99, n),
        error_m=random.uniform(0.6, 1.2, n),
        origin=BASE,
    )
    return make_survey(
        shapely.transform(ground, lambda xy: xy + BASE), taken_at, observations, card=card, **options
    )


def make_grove(database: Database, folder: Path, *, seed: int = 1, groups: int = 16) -> "Grove":
    """Adds the city; it counts trees and cars, and has two levels of areas."""
    grove = Grove(
        database=database, folder=folder, taxonomy=make_taxonomy(), planted=plant(seed, groups=groups)
    )
    outline = geopandas.GeoDataFrame(geometry=[shapely.transform(GROUNDS[0], lambda xy: xy + BASE)], crs=UTM)
    boundary = folder / "boundary.geojson"
    outline.to_crs(4326).to_file(boundary, driver="GeoJSON")
    add_city(
        database,
        CityRequest(
            code=CODE,
            name="Grove",
            areas=AreaFile(path=_areas(folder, 0)),
            boundary=boundary,
            time_zone=str(ZONE),
            classes=("tree", "car"),
        ),
        now=DAYS[0],
    )
    with database.transaction() as connection:
        cities.sync_asset_classes(connection, grove.taxonomy.classes.values())
    return grove


def _areas(folder: Path, layout: int) -> Path:
    """Two districts and three quarters that leave ground outside; layouts differ in where borders run."""
    file = folder / f"areas{layout}.geojson"
    if file.exists():
        return file
    middle, edge = 1_500 + 100 * layout, 1_700 - 150 * layout
    drawn = [
        ("district", "W", shapely.box(0, 0, middle, edge)),
        ("district", "E", shapely.box(middle, 0, WIDTH_M, edge)),
        ("quarter", "Q1", shapely.box(0, 0, 700 + 50 * layout, edge)),
        ("quarter", "Q2", shapely.box(700 + 50 * layout, 0, middle, edge)),
        ("quarter", "Q3", shapely.box(middle, 200, 2_500, 900)),
    ]
    frame = geopandas.GeoDataFrame(
        {
            "level": [level for level, _, _ in drawn],
            "code": [code for _, code, _ in drawn],
            "name": [code for _, code, _ in drawn],
        },
        geometry=[shapely.transform(ground, lambda xy: xy + BASE) for _, _, ground in drawn],
        crs=UTM,
    )
    frame.to_crs(4326).to_file(file, driver="GeoJSON")
    return file


_ASSETS = text(
    """
    SELECT a.public_id, s.x, s.y FROM urban_inventory.asset a
    JOIN urban_inventory.asset_state s ON s.city_id = a.city_id AND s.asset_id = a.id AND s.valid_to IS NULL
    WHERE a.class = 'tree' ORDER BY a.id
    """
)
_SURVEYS = text(
    "SELECT public_id FROM urban_inventory.survey WHERE (withdrawn_at IS NOT NULL) = :out ORDER BY id"
)
_DECISIONS = text("SELECT public_id FROM urban_inventory.decision ORDER BY id")


@dataclass(slots=True, kw_only=True)
class Grove:
    """The city, what stands in it, and the scenes stored so far by public id.

    ``which`` in a step picks one of what there is, counted modulo their number; False where there is none.
    """

    database: Database
    folder: Path
    taxonomy: Taxonomy
    planted: Planted
    scenes: dict[str, FakeSurvey] = field(default_factory=dict)

    # --- looks -----------------------------------------------------------------------------------

    def store(self, *new: FakeSurvey) -> list[Stored]:
        """Surveys in one transaction.

        Raises:
            Conflict: pixels that are stored with another date.
        """
        stored = store_surveys(self.database, CODE, new, taxonomy=self.taxonomy)
        self.scenes |= {one.scene: survey for one, survey in zip(stored, new, strict=True)}
        return stored

    def look(
        self, day: int, ground: int, seed: int, *, card: ModelCard = CROWNS, joined: bool = False, **more: Any
    ) -> bool:
        """One scene; of one source and date, or ``joined`` by the campaign's name, scenes are one campaign."""
        campaign = "spring" if joined else None
        survey = look_at(
            self.planted, GROUNDS[ground], DAYS[day], seed=seed, card=card, campaign=campaign, **more
        )
        return self._try(lambda: self.store(survey))

    def mosaic(self, day: int, seed: int, *, finer: bool) -> bool:
        """Two overlapping scenes of one campaign at once, the eastern one of the same or a better resolution."""
        west, east = (
            look_at(self.planted, GROUNDS[ground], DAYS[day], seed=seed, source="mosaic") for ground in (1, 2)
        )
        if finer:
            east = replace(east, ground_resolution_m=0.05)
        return self._try(lambda: self.store(west, east))

    def rerun(self, which: int, card: ModelCard, seed: int) -> bool:
        """Another model, or the same again, on a scene that was stored."""
        scene = _pick(list(self.scenes.values()), which)
        if scene is None:
            return False
        ground = shapely.transform(scene.surveyed, lambda xy: xy - BASE)
        seen = look_at(self.planted, ground, scene.taken_at, seed=seed, card=card).seen
        return self._try(lambda: self.store(scene.by(card, seen)))

    def correct(self, which: int, east_m: float, north_m: float) -> bool:
        """The same pixels with a corrected georeference."""
        scene = _pick(list(self.scenes.values()), which)
        return scene is not None and self._try(lambda: self.store(scene.moved(east_m, north_m)))

    # --- about evidence --------------------------------------------------------------------------

    def withdraw(self, which: int) -> bool:
        """Takes one survey out."""
        return self._of_survey(which, evidence_changes.withdraw_survey, withdrawn=False)

    def restore(self, which: int) -> bool:
        """Puts one withdrawn survey back."""
        return self._of_survey(which, evidence_changes.restore_survey, withdrawn=True)

    def surveys(self) -> list[str]:
        """Public ids of those that are not withdrawn."""
        return self._column(_SURVEYS, out=False)

    def take_out_and_back(self, survey: str) -> None:
        """Withdraws a survey and restores it."""
        for change in (evidence_changes.withdraw_survey, evidence_changes.restore_survey):
            change(self.database, CODE, survey, taxonomy=self.taxonomy)

    def _of_survey(self, which: int, change: Any, *, withdrawn: bool) -> bool:
        survey = _pick(self._column(_SURVEYS, out=withdrawn), which)
        return survey is not None and self._try(
            lambda: change(self.database, CODE, survey, taxonomy=self.taxonomy)
        )

    def choose(self, card: ModelCard) -> bool:
        """Makes a model the one in force for its classes."""
        return self._try(
            lambda: evidence_changes.choose_model(self.database, CODE, model_of(card), taxonomy=self.taxonomy)
        )

    def redate(self, which: int, day: int) -> bool:
        """Corrects a scene's date."""
        public = _pick(list(self.scenes), which)
        if public is None:
            return False
        done = self._try(
            lambda: evidence_changes.redate_scene(
                self.database, CODE, public, DAYS[day], taxonomy=self.taxonomy
            )
        )
        if done:
            self.scenes[public] = replace(self.scenes[public], taken_at=DAYS[day])
        return done

    def purge(self, which: int) -> bool:
        """Removes a scene's observations for good."""
        public = _pick(list(self.scenes), which)
        done = public is not None and self._try(
            lambda: evidence_changes.purge_scene(
                self.database, CODE, str(public), taxonomy=self.taxonomy, home=self.folder
            )
        )
        if done:
            del self.scenes[str(public)]
        return done

    def areas(self, layout: int, valid_from: date) -> bool:
        """A new drawing of all levels from a day on."""
        request = CityRequest(
            code=CODE, areas=AreaFile(path=_areas(self.folder, layout)), valid_from=valid_from
        )
        return self._try(lambda: add_city(self.database, request, now=DAYS[0]))

    def rebuild(self) -> None:
        """Folds everything from nothing."""
        evidence_changes.rebuild(self.database, CODE, taxonomy=self.taxonomy)

    # --- decisions -------------------------------------------------------------------------------

    def decide(
        self,
        kind: DecisionKind,
        which: int,
        at: datetime,
        *,
        offset_m: tuple[float, float] = (1.0, 1.0),
        other: int = 1,
        **details: Any,
    ) -> bool:
        """A decision on one of the assets there are; other than a merge's second asset, places lie beside it."""
        assets = self._rows(_ASSETS)
        named = _pick(assets, which)
        if named is None:
            return False
        east, north = named.x + offset_m[0], named.y + offset_m[1]
        new = NewDecision(
            kind=kind,
            asset=None if kind is DecisionKind.ADD else named.public_id,
            class_name={DecisionKind.ADD: "tree", DecisionKind.RECLASSIFY: "shrub"}.get(kind),
            lon_lat=lon_lat_of(east, north),
            other_asset=self._beside(assets, named, other),
            at=at,
            details=details,
        )
        return self._try(lambda: decide(self.database, CODE, new, taxonomy=self.taxonomy))

    def _beside(self, assets: Sequence[Any], named: Any, other: int) -> str:
        """One of the nearest assets: merging trees far apart is nothing that people do."""
        by_distance = sorted(assets, key=lambda one: np.hypot(one.x - named.x, one.y - named.y))
        return str(by_distance[other % min(3, len(assets))].public_id)

    def has_decisions(self) -> bool:
        """Whether there is any to take back."""
        return bool(self._column(_DECISIONS))

    def retract(self, which: int, at: datetime) -> bool:
        """Takes one of the decisions back."""
        earlier = _pick(self._column(_DECISIONS), which)
        new = NewDecision(kind=DecisionKind.RETRACT, retracts=earlier, at=at)
        return earlier is not None and self._try(
            lambda: decide(self.database, CODE, new, taxonomy=self.taxonomy)
        )

    # --- asking ----------------------------------------------------------------------------------

    def _rows(self, query: Any, **values: Any) -> Sequence[Any]:
        with self.database.transaction(read_only=True) as connection:
            return connection.execute(query, values).all()

    def _column(self, query: Any, **values: Any) -> list[str]:
        return [row[0] for row in self._rows(query, **values)]

    @staticmethod
    def _try(step: Any) -> bool:
        try:
            step()
        except CallerError:
            return False
        return True


def _pick(things: Sequence[Any], which: int) -> Any:
    return things[which % len(things)] if things else None


def lon_lat_of(east: float, north: float) -> tuple[float, float]:
    """Degrees of a metric position."""
    lon, lat = Transformer.from_crs(UTM, 4326, always_xy=True).transform(east, north)
    return lon, lat


# --- what is said, as comparable values --------------------------------------------------------------

State = tuple[Any, ...]

_STATES = text(
    """
    SELECT a.public_id, s.class, s.valid_from, s.valid_to, s.listed, s.status, s.verified, s.review,
        s.probability, s.x, s.y, s.error_m, s.width_m, s.height_m, s.score, s.hits, s.first_seen, s.last_seen,
        s.first_missed, s.details
    FROM urban_inventory.asset_state s
    LEFT JOIN urban_inventory.asset a ON a.city_id = s.city_id AND a.id = s.asset_id
    WHERE s.city_id = :city
    """
)


def stored_states(connection: Connection, city: City, *, ids: bool = False) -> list[State]:
    """All states in order, without row numbers; with ``ids`` each leads with its asset's public id."""
    rows = connection.execute(_STATES, {"city": city.id})
    return sorted((tuple(map(_plain, row if ids else row[1:])) for row in rows), key=repr)


def _all_evidence(connection: Connection, city: City, asset_class: AssetClass) -> Evidence:
    looks = evidence.load_looks(connection, city, asset_class).looks
    surveys = [scene.survey_id for look in looks for scene in look.scenes]
    seen = evidence.load_observations(connection, city, asset_class.name, surveys)
    return Evidence(
        class_name=asset_class.name,
        looks=tuple(
            replace(
                look,
                scenes=tuple(replace(scene, observations=seen[scene.survey_id]) for scene in look.scenes),
            )
            for look in looks
        ),
        decisions=evidence.load_decisions(connection, city, asset_class.name, None),
    )


def fresh_states(connection: Connection, city: City, taxonomy: Taxonomy) -> list[State]:
    """What a fold of all evidence from nothing says, in the form of ``stored_states``; stores nothing."""
    found: list[State] = []
    for asset_class in taxonomy.classes.values():
        folded = fold(
            _all_evidence(connection, city, asset_class), static=asset_class.kind is ClassKind.STATIC
        )
        columns = folded.states
        names = np.array(folded.classes, object)[columns["class_code"].astype(int)]
        # As text: the table keeps single precision, and gives out the shortest digits that mean it.
        reals = [
            columns[name].astype(np.float32).astype(str)
            for name in ("probability", "error_m", "width_m", "height_m", "score")
        ]
        texts = [*folded.texts, None]
        for row in range(len(names)):
            probability, error, width, height, score = (
                None if column[row] == "nan" else float(column[row]) for column in reals
            )
            found.append(
                (
                    names[row],
                    *(_instant(columns[name][row]) for name in ("valid_from", "valid_to")),
                    bool(columns["listed"][row]),
                    STATUSES[int(columns["status"][row])],
                    *(bool(columns[name][row]) for name in ("verified", "review")),
                    probability,
                    *(float(columns[name][row]) for name in ("x", "y")),
                    error,
                    width,
                    height,
                    score,
                    int(columns["hits"][row]),
                    *(_instant(columns[name][row]) for name in ("first_seen", "last_seen", "first_missed")),
                    _plain(texts[int(columns["details"][row])]),
                )
            )
    return sorted(found, key=repr)


def _instant(micros: np.int64) -> int | None:
    return None if micros == NEVER else int(micros)


def _plain(value: Any) -> Any:
    """Instants as microseconds, reals as the table keeps them, descriptions as text."""
    if isinstance(value, datetime):
        return int(to_micros(value))
    if isinstance(value, dict):
        return repr(sorted(value.items()))
    return value


def days_of(connection: Connection, city: City) -> list[date]:
    """Local days on which anything may change, the day before each, and one after all."""
    query = text(
        """
        SELECT valid_from FROM urban_inventory.asset_state UNION SELECT valid_to FROM urban_inventory.asset_state
        UNION SELECT taken_at FROM urban_inventory.scene UNION SELECT at FROM urban_inventory.decision
        """
    )
    zone = ZoneInfo(city.time_zone)
    days = {at.astimezone(zone).date() for at in connection.execute(query).scalars() if at is not None}
    days |= {v.valid_from for v in cities.all_area_versions(connection, city.id) if v.valid_from}
    return sorted(days | {day - timedelta(days=1) for day in days} | {date(2030, 1, 1)})


def counts_of(database: Database, city_code: str, days: Sequence[date]) -> dict[tuple[date, str], Any]:
    """(day, level) → every row of ``count`` as JSON, the city's own under “city”."""
    found: dict[tuple[date, str], Any] = {}
    for day in days:
        found[day, "city"] = [row.as_json() for row in count(database, city_code, as_of=day)]
        for level in ("district", "quarter"):
            found[day, level] = [row.as_json() for row in count(database, city_code, level=level, as_of=day)]
    return found


# --- laws --------------------------------------------------------------------------------------------


def check_fresh(grove: Grove) -> None:
    """R1: what is stored is what a fold of all evidence from nothing says."""
    with grove.database.transaction() as connection:
        city = cities.get_city(connection, CODE)
        stored, fresh = (
            stored_states(connection, city),
            fresh_states(connection, city, grove.taxonomy),
        )
    assert stored == fresh, _difference(stored, fresh)


def check_rebuild(grove: Grove) -> None:
    """R1: a rebuild changes nothing: neither counts of any date, nor states, nor ids, nor the history."""
    before = _everything(grove)
    grove.rebuild()
    after = _everything(grove)
    for name, value in before.items():
        assert after[name] == value, f"{name}: {_difference(value, after[name])}"


def _everything(grove: Grove) -> dict[str, Any]:
    with grove.database.transaction(read_only=True) as connection:
        city = cities.get_city(connection, CODE)
        days = days_of(connection, city)
        states = stored_states(connection, city, ids=True)
        aliases = connection.execute(
            text(
                "SELECT a.public_id, b.public_id FROM urban_inventory.asset a"
                " JOIN urban_inventory.asset b ON b.city_id = a.city_id AND b.id = a.alias_of ORDER BY 1"
            )
        ).all()
        history = connection.execute(text("SELECT count(*) FROM urban_inventory.history")).scalar_one()
    return {
        "counts": counts_of(grove.database, CODE, days),
        "states": states,
        "aliases": [tuple(row) for row in aliases],
        "history": history,
    }


def check_sums(grove: Grove) -> None:
    """R8, R12: items listed are the count, in every area, and areas and outside add up to the city."""
    with grove.database.transaction(read_only=True) as connection:
        city = cities.get_city(connection, CODE)
        days = days_of(connection, city)
        listed = _listed(connection, city)
        versions = {day: versions_by_level(cities.areas_as_of(connection, city, day)) for day in days}
    for (day, level), rows in counts_of(grove.database, CODE, days).items():
        at = to_micros(end_of_day(day, city.time_zone))
        now = listed.take((listed.valid_from <= at) & (at < listed.valid_to))
        said = {(row["area"], row["class"]): row["count"] or 0 for row in rows}
        if level == "city":
            items = dict.fromkeys(said, 0) | {(CODE, n): int((now.names == n).sum()) for n in set(now.names)}
            items = {key: value for key, value in items.items() if key in said}
        else:
            areas = versions[day][level]
            owner = area_of_points(now.lon_lat, areas)
            codes = np.array([*(area.code for area in areas), OUTSIDE], object)[owner]
            items = {(c, n): int(((codes == c) & (now.names == n)).sum()) for c, n in said}
        assert said == items, (day, level, said, items)
    check_polygons(grove, days)


GLOBE = np.array([[-180.0, -90.0], [180.0, -90.0], [180.0, 90.0], [-180.0, 90.0]])


def check_polygons(grove: Grove, days: Iterable[date]) -> None:
    """Counts in polygons, from packed leaves and their deltas, are those of testing every item."""
    random = np.random.default_rng(7)
    with grove.database.transaction(read_only=True) as connection:
        city = cities.get_city(connection, CODE)
        listed = _listed(connection, city)
        if not len(listed.names):
            return
        for day in days:
            at = end_of_day(day, city.time_zone)
            now = listed.take((listed.valid_from <= to_micros(at)) & (to_micros(at) < listed.valid_to))
            corners = listed.lon_lat[random.integers(0, len(listed.names), 3)]
            known = KnownCity(city=city, version=UNKEPT)
            # The globe, and a triangle whose corners are items.
            for outline in (GLOBE, corners):
                polygon = shapely.Polygon(outline)
                if not polygon.is_valid:
                    continue
                inside = shapely.intersects_xy(polygon, *now.lon_lat.T)
                classes = sorted(set(listed.names))
                said = leaves.count_in_polygon(connection, known, polygon, classes, at)
                wanted = {name: int((inside & (now.names == name)).sum()) for name in classes}
                assert {name: said[name].listed if name in said else 0 for name in classes} == wanted, day


@dataclass(frozen=True, slots=True)
class _Listed:
    names: NDArray[Any]
    lon_lat: NDArray[np.float64]
    valid_from: NDArray[np.int64]
    valid_to: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> "_Listed":
        return _Listed(self.names[rows], self.lon_lat[rows], self.valid_from[rows], self.valid_to[rows])


def _listed(connection: Connection, city: City) -> _Listed:
    rows = connection.execute(
        text(
            "SELECT class, ST_X(geom), ST_Y(geom), valid_from, valid_to FROM urban_inventory.asset_state"
            " WHERE listed AND city_id = :city"
        ),
        {"city": city.id},
    ).all()
    return _Listed(
        np.array([row[0] for row in rows], object),
        np.array([row[1:3] for row in rows], np.float64).reshape(-1, 2),
        np.array([to_micros(row[3]) for row in rows], np.int64),
        np.array([NEVER if row[4] is None else to_micros(row[4]) for row in rows], np.int64),
    )


def check_ids(grove: Grove) -> None:
    """R7: one id has one state at a time, and an alias stands for an id that stands for itself."""
    with grove.database.transaction(read_only=True) as connection:
        overlapping = connection.execute(
            text(
                """
                SELECT s.asset_id FROM urban_inventory.asset_state s
                JOIN urban_inventory.asset_state o ON o.city_id = s.city_id AND o.asset_id = s.asset_id
                    AND o.id > s.id AND tstzrange(o.valid_from, o.valid_to) && tstzrange(s.valid_from, s.valid_to)
                """
            )
        ).all()
    assert overlapping == []


@dataclass(slots=True)
class Memory:
    """What was known after each step, to be compared with what the history replays (R14)."""

    known: list[tuple[datetime, list[str]]] = field(default_factory=list)

    def remember(self, grove: Grove) -> None:
        """Keeps what is stored now, and when that was."""
        with grove.database.transaction(read_only=True) as connection:
            states = known_now(connection)
        self.known.append((database_clock(grove.database), states))

    def check(self, grove: Grove) -> None:
        """R14: replaying to each instant gives what was known then."""
        with grove.database.transaction(read_only=True) as connection:
            for recorded_at, states in self.known:
                assert replayed(connection, recorded_at) == states


_SAID = (
    "track, class, listed, status, verified, review, probability, x, y, hits, survey_id, decision_id, misses"
)


def known_now(connection: Connection) -> list[str]:
    """Everything that is said now, as text."""
    query = f"SELECT ROW({_SAID}, valid_from, valid_to)::text FROM urban_inventory.asset_state"
    return sorted(connection.execute(text(query)).scalars())


def replayed(connection: Connection, recorded_at: datetime) -> list[str]:
    """What the history says was known at an instant: said by then and not ended yet, each until the next."""
    columns = f"city_id, {_SAID}, valid_from, change_id"
    query = text(
        f"""
        SELECT ROW({_SAID}, valid_from,
            lead(valid_from) OVER (PARTITION BY track, minted_as ORDER BY valid_from))::text
        FROM (
            SELECT {columns}, minted_as, NULL::bigint AS ended_by FROM urban_inventory.asset_state
            UNION ALL SELECT {columns}, minted_as, ended_by FROM urban_inventory.history
        ) s
        JOIN urban_inventory.change c ON c.city_id = s.city_id AND c.id = s.change_id
        LEFT JOIN urban_inventory.change e ON e.city_id = s.city_id AND e.id = s.ended_by
        WHERE c.recorded_at <= :at AND (e.id IS NULL OR e.recorded_at > :at)
        """
    )
    return sorted(connection.execute(query, {"at": recorded_at}).scalars())


def _difference(one: Any, other: Any) -> str:
    """What differs, short enough to read."""
    if isinstance(one, dict):
        differing = [(key, one[key], other.get(key)) for key in one if one[key] != other.get(key)]
        return f"{len(differing)} differ, first {differing[:1]}"
    if isinstance(one, list):
        left, right = set(map(repr, one)), set(map(repr, other))
        return (
            f"{len(one)} and {len(other)}; only before: {sorted(left - right)[:3]}; "
            f"only after: {sorted(right - left)[:3]}"
        )
    return f"{one} became {other}"


CARDS_OF_TREES = (CROWNS, CANOPIES)
ALL_CARDS = tuple(CARDS.values())

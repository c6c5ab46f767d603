"""Decisions one by one and as files: what they bind to, what they make, and what is refused (R11)."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from sqlalchemy import text

from detection.errors import CallerError, UnknownName
from inventory.decision_files import decide_file
from inventory.decisions import Decided, NewDecision, decide, decide_one
from inventory.domain.binding import REACH_M, Candidate, meant
from inventory.domain.evidence import DecisionKind
from inventory.errors import DecisionsUnusable, DecisionUnusable, JsonUnusable
from inventory.reviewing import open_reviews
from inventory.store.database import Database
from tests.support.scenes import ORIGIN, UTM
from tests.support.town import CODE, GRID, Town, make_town

TREES = GRID[:45]
BARE = GRID[48]
TO_LON_LAT = Transformer.from_crs(UTM, 4326, always_xy=True)


@pytest.fixture
def town(database: Database, tmp_path: Path) -> Town:
    town = make_town(database, tmp_path)
    town.ingest(town.picture("one", TREES), "2024-05-01")
    return town


def place(corner: tuple[int, int], *, east_m: float = 0.0, north_m: float = 0.0) -> list[float]:
    """Longitude and latitude of a tree drawn at a corner, or so many metres beside it."""
    x = ORIGIN[0] + (corner[0] + 4) * 0.2 + east_m
    y = ORIGIN[1] - (corner[1] + 4) * 0.2 + north_m
    return [round(degree, 8) for degree in TO_LON_LAT.transform(x, y)]


def feature(point: list[float] | None, kind: str = "verify", **said: Any) -> dict[str, Any]:
    geometry = None if point is None else {"type": "Point", "coordinates": point}
    properties = {"decision": kind, "at": "2024-06-01", "reason": "stood before it", **said}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write(town: Town, *features: Any, **members: Any) -> Path:
    file = town.folder / "decisions.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features, **members}), "utf-8")
    return file


def say(town: Town, *features: Any, author: str = "local", **members: Any) -> list[Decided]:
    file = write(town, *features, **members)
    return decide_file(town.database, CODE, file, taxonomy=town.taxonomy, author=author)


def stored(town: Town) -> list[dict[str, Any]]:
    query = text(
        "SELECT public_id, kind, class, at, asset, author, reason, details FROM urban_inventory.decision ORDER BY id"
    )
    with town.database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def asset_at(town: Town, corner: tuple[int, int]) -> str:
    (decided,) = say(town, feature(place(corner), "describe", text="this one"))
    assert decided.asset is not None
    return decided.asset


# --- binding -----------------------------------------------------------------------------------------------


def test_a_place_means_the_nearest_asset_as_of_its_instant(town: Town) -> None:
    one, two = say(
        town,
        feature(place(TREES[10], east_m=1.5), author="ana"),
        feature(place(TREES[11]), "reject", author=None),
        author="ben",
    )
    assert one.asset != two.asset
    assert (one.made, two.made) == (None, None)
    rows = stored(town)
    assert [(row["kind"], row["author"], row["asset"]) for row in rows] == [
        ("verify", "ana", one.asset),
        ("reject", "ben", two.asset),
    ]
    assert town.total() == 44


def test_a_place_where_nothing_stands_or_too_early_is_refused(town: Town) -> None:
    for bad in (feature(place(BARE)), feature(place(TREES[0]), at="2023-01-01")):
        with pytest.raises(DecisionsUnusable, match="feature 1: no asset is known within 6 m"):
            say(town, bad)
    assert stored(town) == []


def test_a_place_between_two_trees_names_both(town: Town) -> None:
    between = place(TREES[10], east_m=4.8)
    with pytest.raises(
        DecisionsUnusable, match=r"may mean several on 2024-06-01: \w+ \(4.8 m\), \w+ \(4.8 m\)"
    ):
        say(town, feature(between))


def candidate(name: str, distance_m: float, **said: Any) -> Candidate:
    return Candidate(
        **{"public_id": name, "class_name": "tree", "status": "present", "listed": True, **said},
        distance_m=distance_m,
    )


def names(*candidates: Candidate) -> list[str]:
    return [one.public_id for one in meant(candidates)]


def test_what_a_place_means() -> None:
    assert names() == []
    assert names(candidate("far", REACH_M + 0.1)) == []
    assert names(candidate("near", 1.0), candidate("next", 2.5)) == ["near"]
    assert names(candidate("near", 1.0), candidate("next", 1.9)) == ["near", "next"]
    assert names(candidate("here", 0.0), candidate("beside", 0.9)) == ["here", "beside"]
    gone = {"status": "gone", "listed": False}
    assert names(candidate("stump", 0.1, **gone), candidate("young", 0.5)) == ["young"]
    assert names(candidate("stump", 0.1, **gone), candidate("neighbour", 5.0)) == ["stump"]


@given(st.lists(st.floats(0, 10), max_size=6))
def test_a_clear_meaning_is_the_nearest(distances: list[float]) -> None:
    near = [candidate(str(number), distance) for number, distance in enumerate(distances)]
    found = meant(near)
    assert bool(found) == any(distance <= REACH_M for distance in distances)
    if found:
        assert found[0].distance_m == min(distances)


# --- every kind by file ------------------------------------------------------------------------------------


def test_every_kind_of_decision_comes_by_file(town: Town) -> None:
    town.taxonomy.classes["bench"] = town.taxonomy.classes["tree"].model_copy(update={"name": "bench"})
    merged = asset_at(town, TREES[13])
    decided = say(
        town,
        feature(place(TREES[0]), "verify"),
        feature(place(TREES[1]), "reject"),
        feature(place(TREES[2]), "move", to=place(TREES[2], north_m=2.0)),
        feature(place(TREES[3]), "reclassify", **{"class": "bench"}),
        feature(place(TREES[4]), "describe", text="an old oak"),
        feature(place(BARE), "add", **{"class": "tree"}),
        feature(place(TREES[12]), "merge", **{"with": merged}),
        feature(place(TREES[20]), "split", to=",".join(map(str, place(TREES[20], east_m=4.0)))),
    )
    assert [one.kind.value for one in decided] == [
        "verify", "reject", "move", "reclassify", "describe", "add", "merge", "split",
    ]  # fmt: skip
    add, split = decided[5], decided[7]
    assert add.made == add.asset
    assert add.made is not None
    assert split.made not in (None, split.asset)
    # 45 − rejected − reclassified − merged + added + split
    assert town.total() == 44
    (taken_back,) = say(town, feature(None, "retract", retracts=decided[1].decision))
    assert taken_back.asset == decided[1].asset
    assert town.total() == 45


def test_where_the_asset_is_named_the_point_of_a_move_is_its_new_place(town: Town) -> None:
    asset = asset_at(town, TREES[5])
    new_place = place(TREES[5], north_m=3.0)
    say(town, feature(new_place, "move", asset=asset))
    query = text("SELECT ST_X(geom), ST_Y(geom) FROM urban_inventory.listed_assets WHERE id = :id")
    with town.database.transaction() as connection:
        found = connection.execute(query, {"id": asset}).one()
    assert list(found) == pytest.approx(new_place, abs=1e-6)


def test_a_merge_finds_its_second_asset_by_place(town: Town) -> None:
    say(town, feature(place(TREES[12]), "merge", to=place(TREES[13])))
    assert town.total() == 44
    with pytest.raises(DecisionsUnusable, match="cannot be merged with itself"):
        say(town, feature(place(TREES[0]), "merge", to=place(TREES[0])))


def test_add_says_whether_it_met_an_asset_or_made_one(town: Town) -> None:
    def add(corner: tuple[int, int]) -> Decided:
        lon, lat = place(corner)
        new = NewDecision(
            kind=DecisionKind.ADD, class_name="tree", lon_lat=(lon, lat), at=datetime(2024, 6, 1, tzinfo=UTC)
        )
        return decide_one(town.database, CODE, new, taxonomy=town.taxonomy)

    met, made = add(TREES[7]), add(BARE)
    assert met.made is None
    assert met.asset == asset_at(town, TREES[7])
    assert made.made == made.asset
    assert town.total() == 46
    again = add(BARE)
    assert (again.asset, again.made) == (made.asset, None)


# --- all or none -------------------------------------------------------------------------------------------


def test_one_bad_feature_stores_nothing_and_every_bad_one_is_named(town: Town) -> None:
    before = town.total()
    with pytest.raises(DecisionsUnusable) as refused:
        say(
            town,
            feature(place(TREES[0]), "reject"),
            feature(place(TREES[1]), "felled"),
            feature(place(TREES[2]), at="yesterday"),
            feature(place(TREES[3]), reason=""),
        )
    said = str(refused.value)
    assert "3 of 4 features cannot be used, so nothing was stored" in said
    assert "feature 2: “felled” is no decision" in said
    assert "feature 3: “yesterday” is no date" in said
    assert "feature 4: it has no “reason”" in said
    assert set(refused.value.problems) == {1, 2, 3}
    assert (stored(town), town.total()) == ([], before)


def test_a_feature_that_only_the_inventory_refuses_stores_nothing(town: Town) -> None:
    with pytest.raises(DecisionsUnusable, match="feature 2: no asset “nobody”"):
        say(town, feature(place(TREES[0]), "reject"), feature(place(TREES[1]), asset="nobody"))
    assert stored(town) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (feature([500_000.0, 4_977_000.0]), "outside of ±180, ±90"),
        (feature([44.945, -110.4798]), "outside of ±180, ±90"),
        (feature([10.0, 20.0]), "lies outside town"),
        (feature([31.2, 121.5]), "Longitude comes first: they are swapped"),
        (feature(None), "it has no geometry"),
        (feature(["a", "b"]), "is no place"),  # type: ignore[list-item]
        ({**feature([1.0, 2.0]), "geometry": {"type": "Polygon", "coordinates": []}}, "no point but Polygon"),
        ({"type": "Point", "coordinates": [1.0, 2.0]}, "no GeoJSON Feature"),
        (feature(place(TREES[0]), asset=17), "asset is no text but 17"),
        (feature(place(TREES[0]), reason="x" * 3000), "reason has 3,000 letters"),
        (feature(place(TREES[0]), "add"), "it has no “class”"),
        (feature(place(TREES[0]), "add", **{"class": "tre"}), "no asset class “tre”"),
        (feature(place(TREES[0]), "reclassify"), "it has no “class”"),
        (feature(place(TREES[0]), "move"), "“move” needs a second place"),
        (feature(place(TREES[0]), "move", to="north"), "is no place"),
        (feature(place(TREES[0]), "move", to=[10.0, 20.0]), "lies outside town"),
        (feature(place(TREES[0]), "merge"), "“merge” needs a second asset"),
        (feature(None, "retract"), "it has no “retracts”"),
        (feature(None, "retract", retracts="none"), "no decision “none”"),
        (feature(place(TREES[0]), at=None), "it has no “at”"),
        (feature(place(TREES[0]), at="2999-01-01"), "2999-01-01 has not come yet"),
        (feature(place(TREES[0]), at="0024-06-01"), "is too long ago"),
        (feature(place(TREES[0]), reason="a\x00b"), "reason has a zero byte"),
        (feature(place(TREES[0]), "merge", to=place(TREES[40])), "no crown is as wide"),
        (feature(place(TREES[0]), "split", to=place(TREES[0], east_m=60)), "no crown is as wide"),
        (feature(place(TREES[0]), "split", to=place(TREES[0])), "Give the place of the second one"),
    ],
)
def test_each_fault_of_a_feature_has_one_clear_message(town: Town, bad: Any, said: str) -> None:
    with pytest.raises(DecisionsUnusable, match="1 of 2 features") as refused:
        say(town, bad, feature(place(TREES[9])))
    assert f"feature 1: {said}" in str(refused.value) or said in str(refused.value)
    assert stored(town) == []


def test_swapped_coordinates_are_told(town: Town) -> None:
    lon, lat = place(TREES[0])
    with pytest.raises(DecisionUnusable, match="outside town"):
        decide(
            town.database,
            CODE,
            NewDecision(kind=DecisionKind.ADD, class_name="tree", lon_lat=(lat / 2, lon / 2)),
            taxonomy=town.taxonomy,
        )


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"not json", JsonUnusable, "not JSON"),
        (b"\xff\xfe\x00", JsonUnusable, "not JSON"),
        (b"[1, 2]", DecisionUnusable, "no GeoJSON FeatureCollection"),
        (b'{"type": "FeatureCollection", "features": []}', DecisionUnusable, "no features"),
        (b'{"type": "FeatureCollection"}', DecisionUnusable, "no features"),
        (
            b'{"type":"FeatureCollection","crs":{"properties":{"name":"urn:ogc:def:crs:EPSG::32612"}},"features":[1]}',
            DecisionUnusable,
            "another CRS",
        ),
        (
            b'{"type":"FeatureCollection","crs":{"properties":{"name":"urn:ogc:def:crs:EPSG::43265"}},"features":[1]}',
            DecisionUnusable,
            "another CRS",
        ),
    ],
)
def test_a_file_that_is_no_geojson_of_degrees_is_refused(
    town: Town, content: bytes, error: type[CallerError], said: str
) -> None:
    file = town.folder / "bad.geojson"
    file.write_bytes(content)
    with pytest.raises(error, match=said):
        decide_file(town.database, CODE, file, taxonomy=town.taxonomy)
    with pytest.raises(CallerError, match="cannot be read"):
        decide_file(town.database, CODE, town.folder / "none.geojson", taxonomy=town.taxonomy)


def test_the_crs_that_gis_programs_still_write_is_longitude_latitude(town: Town) -> None:
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    (decided,) = say(town, feature(place(TREES[0])), crs=crs)
    assert decided.asset is not None


def test_the_same_file_again_changes_nothing_and_says_so(town: Town) -> None:
    features = [feature(place(BARE), "add", **{"class": "tree"}), feature(place(TREES[3]), "reject")]
    first = say(town, *features)
    rows, again = stored(town), say(town, *features)
    assert [one.decision for one in again] == [one.decision for one in first]
    assert [one.is_new for one in (*first, *again)] == [True, True, False, False]
    assert stored(town) == rows
    assert say(town, features[1])[0].is_new


def test_a_file_with_one_decision_that_cannot_be_used_is_named_with_its_feature(town: Town) -> None:
    with pytest.raises(DecisionsUnusable, match="1 of 1 feature cannot be used") as refused:
        say(town, feature(place(TREES[1]), asset="nobody"))
    assert "feature 1: no asset “nobody”" in str(refused.value)


# --- reviews -----------------------------------------------------------------------------------------------


def test_a_verified_tree_that_later_imagery_misses_is_asked_about_until_answered(town: Town) -> None:
    (verified,) = say(town, feature(place(TREES[24]), author="ana"))
    assert open_reviews(town.database, CODE)[1] == []
    for year in (2025, 2026):
        left = [tree for tree in TREES if tree != TREES[24]]
        town.ingest(town.picture(f"y{year}", left), f"{year}-05-01")
    _, (review,) = open_reviews(town.database, CODE)
    assert (review.asset, review.status, review.listed) == (verified.asset, "doubtful", True)
    assert review.since.date().isoformat() == "2025-05-01"
    assert (review.decision, review.kind, review.author, review.reason) == (
        verified.decision,
        "verify",
        "ana",
        "stood before it",
    )
    assert [taken_at.year for *_, taken_at in review.missed_by] == [2025, 2026]
    assert review.lon_lat == pytest.approx(tuple(place(TREES[24])), abs=1e-5)
    say(town, feature(None, "reject", asset=verified.asset, at="2026-06-01", reason="felled"))
    assert open_reviews(town.database, CODE)[1] == []
    with pytest.raises(UnknownName):
        open_reviews(town.database, CODE, classes=["bench"])

"""Rules of the domain that need the store, each on the fewest trees that show it (architecture R2–R15)."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import shapely
from sqlalchemy import text

from detection.errors import Conflict
from detection.taxonomy import SceneKind
from inventory import evidence_changes, refolding
from inventory.counting import count
from inventory.decisions import NewDecision, decide
from inventory.domain import cells
from inventory.domain.evidence import DecisionKind
from inventory.domain.tally import CountRow
from inventory.ingest import Status
from inventory.store import cities, decisions
from inventory.store.database import Database
from tests.support.grove import (
    BASE,
    CODE,
    ZONE,
    Grove,
    check_fresh,
    check_rebuild,
    known_now,
    lon_lat_of,
    make_grove,
    replayed,
)
from tests.support.surveys import (
    CANOPIES,
    CROWNS,
    Stored,
    database_clock,
    make_card,
    make_seen,
    make_survey,
    model_of,
)

# Local metres; no two within a gate of 6 m.
A, B, C = (100.0, 100.0), (150.0, 100.0), (200.0, 100.0)
PLOT = (0.0, 0.0, 400.0, 400.0)


@pytest.fixture
def city(database: Database, tmp_path: Path) -> Grove:
    return make_grove(database, tmp_path)


def noon(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZONE)


def look(
    city: Grove, day: str, *places: tuple[float, float], ground: tuple[float, ...] = PLOT, **options: Any
) -> Stored:
    """One scene of a plot, stored and folded in."""
    x_min, y_min, x_max, y_max = ground
    seen = make_seen([(x + BASE[0], y + BASE[1]) for x, y in places], origin=BASE)
    box = shapely.box(x_min + BASE[0], y_min + BASE[1], x_max + BASE[0], y_max + BASE[1])
    (stored,) = city.store(make_survey(box, noon(day), seen, **options))
    return stored


def assets(city: Grove, day: str = "2029-01-01") -> dict[tuple[int, int], Any]:
    """What has a state as of a day's end, by rounded local place."""
    query = text(
        """
        SELECT s.*, a.public_id, v.public_id AS survey FROM urban_inventory.asset_state s
        LEFT JOIN urban_inventory.asset a ON a.city_id = s.city_id AND a.id = s.asset_id
        LEFT JOIN urban_inventory.survey v ON v.id = s.survey_id
        WHERE s.valid_from <= :at AND (s.valid_to IS NULL OR s.valid_to > :at)
        """
    )
    with city.database.transaction(read_only=True) as connection:
        rows = connection.execute(query, {"at": noon(day) + timedelta(hours=11)}).all()
    return {(round(row.x - BASE[0]), round(row.y - BASE[1])): row for row in rows}


def listed(city: Grove, day: str = "2029-01-01") -> set[tuple[int, int]]:
    return {place for place, row in assets(city, day).items() if row.listed}


def said(city: Grove, kind: DecisionKind, day: str, **more: Any) -> str:
    """A decision, by the place of what it is about or with what is given."""
    return decide(city.database, CODE, NewDecision(kind=kind, at=noon(day), **more), taxonomy=city.taxonomy)


def total(city: Grove, day: str = "2029-01-01") -> CountRow:
    (row,) = count(city.database, CODE, classes=["tree"], as_of=date.fromisoformat(day))
    return row


def withdraw(city: Grove, survey: str) -> None:
    evidence_changes.withdraw_survey(city.database, CODE, survey, taxonomy=city.taxonomy)


def restore(city: Grove, survey: str) -> None:
    evidence_changes.restore_survey(city.database, CODE, survey, taxonomy=city.taxonomy)


def place_lon_lat(place: tuple[float, float]) -> tuple[float, float]:
    return lon_lat_of(place[0] + BASE[0], place[1] + BASE[1])


# --- R2, R3: scenes and models in force -----------------------------------------------------------------


def test_r2_the_same_pixels_with_another_date_are_refused(city: Grove) -> None:
    look(city, "2021-05-01", A, pixels="ab" * 32)
    with pytest.raises(Conflict, match="already"):
        look(city, "2022-05-01", A, pixels="ab" * 32)


def test_r2_a_corrected_georeference_supersedes_for_every_class_and_model(city: Grove) -> None:
    first = look(city, "2021-05-01", A, B)
    scene = city.scenes[first.scene]
    city.store(scene.by(CANOPIES, scene.seen))
    (moved,) = city.store(scene.moved(12, 0))
    assert moved.status is Status.SUPERSEDED
    assert listed(city) == {(112, 100), (162, 100)}
    assert city.choose(CANOPIES)  # it has not run on the new scene: the survey in force stays
    assert listed(city) == {(112, 100), (162, 100)}


def test_r3_each_scene_has_the_model_whose_range_holds_its_resolution(city: Grove) -> None:
    fine = make_card("fine", "tree", range_m=(0.02, 0.12))
    coarse = make_card("coarse", "tree", range_m=(0.1, 0.3))
    tree = city.taxonomy.get("tree").model_copy(update={"models": ("fine", "coarse")})
    city.taxonomy = city.taxonomy.model_copy(update={"classes": {**city.taxonomy.classes, "tree": tree}})
    look(city, "2021-05-01", A, ground=(0, 0, 120, 400), ground_resolution_m=0.05, card=fine)
    look(city, "2021-05-02", B, ground=(120, 0, 180, 400), ground_resolution_m=0.25, card=coarse)
    both = look(city, "2021-05-03", C, ground=(180, 0, 400, 400), ground_resolution_m=0.11, card=coarse)
    again = city.scenes[both.scene]
    city.store(again.by(fine, make_seen([(210 + BASE[0], 100 + BASE[1])])))
    assert listed(city) == {(100, 100), (150, 100), (210, 100)}
    assert city.choose(coarse)
    # The fine scene keeps the survey in force that it has.
    assert listed(city) == {(100, 100), (150, 100), (200, 100)}


def test_r3_a_run_by_a_model_that_is_not_in_force_is_stored_and_says_so(city: Grove) -> None:
    first = look(city, "2021-05-01", A, B)
    scene = city.scenes[first.scene]
    (other,) = city.store(scene.by(CANOPIES, make_seen([(C[0] + BASE[0], C[1] + BASE[1])])))
    assert other.status is Status.NOT_IN_FORCE
    assert listed(city) == {(100, 100), (150, 100)}
    assert city.choose(CANOPIES)
    assert listed(city) == {(200, 100)}


def test_r3_until_the_chosen_model_has_run_the_previous_survey_stays_and_is_named(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    chosen = evidence_changes.choose_model(city.database, CODE, model_of(CANOPIES), taxonomy=city.taxonomy)
    assert len(chosen.scenes_without) == 1
    assert listed(city) == {(100, 100), (150, 100)}


# --- R4, R5: campaigns and adequacy ---------------------------------------------------------------------


def test_r3_choosing_back_gives_what_was_before_also_where_only_the_other_model_has_looked(
    city: Grove,
) -> None:
    look(city, "2021-05-01", A, B)
    look(city, "2023-05-01", B, card=CANOPIES)  # in shadow
    before = assets(city)
    city.choose(CANOPIES)
    assert total(city).count == 1
    look(city, "2025-05-01", A, B, C, card=CANOPIES)  # while it is in use
    city.choose(CROWNS)
    assert listed(city) == {(100, 100), (150, 100), (200, 100)}
    assert assets(city, "2024-01-01").keys() == before.keys()
    check_rebuild(city)


def test_r4_a_named_campaign_joins_two_dates_and_is_in_effect_on_the_last(city: Grove) -> None:
    look(city, "2021-05-01", A, B, ground=(0, 0, 170, 400), campaign="spring", source="walk")
    assert listed(city, "2021-05-01") == {(100, 100), (150, 100)}
    # B lies on ground that both show, and the second scene missed it: one look, so no miss.
    look(city, "2021-05-09", C, ground=(130, 0, 400, 400), campaign="spring", source="walk")
    assert listed(city, "2021-05-08") == set()
    assert {(100, 100), (200, 100)} <= listed(city, "2021-05-09")
    assert {row.status for row in assets(city).values()} == {"present"}


def test_r4_without_a_name_two_dates_are_two_looks(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    look(city, "2021-05-09", A)
    assert assets(city)[150, 100].status == "doubtful"


@pytest.mark.parametrize(
    "inadequate",
    [{"scene_kind": SceneKind.OBLIQUE}, {"ground_resolution_m": 1.5}],
    ids=["oblique", "too-coarse"],
)
def test_r5_an_inadequate_look_neither_counts_nor_covers_nor_testifies_to_absence(
    city: Grove, inadequate: dict[str, Any]
) -> None:
    look(city, "2021-05-01", C, **inadequate)
    assert total(city).count is None
    look(city, "2022-05-01", A, B)
    look(city, "2023-05-01", A, **inadequate)
    look(city, "2024-05-01", A, **inadequate)
    assert assets(city)[150, 100].status == "present"
    assert total(city).count == 2
    assert total(city).newest_look == date(2022, 5, 1)


# --- R7: ids ---------------------------------------------------------------------------------------------


def test_r7_aliases_part_again_when_their_observations_do(city: Grove) -> None:
    first = look(city, "2021-05-01", A)
    (older,) = {row.public_id for row in assets(city).values()}
    withdraw(city, first.survey)
    look(city, "2022-05-01", A)
    (younger,) = {row.public_id for row in assets(city).values()}
    restore(city, first.survey)
    assert assets(city)[100, 100].public_id == older
    assert alias_of(city, younger) == older
    city.store(city.scenes[first.scene].moved(30, 0))
    ids = {place: row.public_id for place, row in assets(city).items()}
    assert ids == {(130, 100): older, (100, 100): younger}
    assert alias_of(city, younger) is None


def test_r7_no_id_is_given_to_another_tree(city: Grove) -> None:
    first = look(city, "2021-05-01", A)
    before = assets(city)[100, 100].public_id
    withdraw(city, first.survey)
    look(city, "2022-05-01", B)
    assert assets(city)[150, 100].public_id != before


def test_r7_withdraw_and_restore_give_back_ids_whose_root_is_withdrawn(city: Grove) -> None:
    # The id of (104, 100) is rooted in a withdrawn look. While the look of 2022, which pulls the other tree
    # away, is out as well, its last observation belongs to the other tree.
    root = look(city, "2020-05-01", (105.0, 100.0))
    look(city, "2021-05-01", (100.0, 100.0))
    between = look(city, "2022-05-01", (98.0, 100.0))
    look(city, "2023-05-01", (104.0, 100.0))
    withdraw(city, root.survey)
    before = {place: row.public_id for place, row in assets(city).items()}
    assert len(before) == 2
    withdraw(city, between.survey)
    restore(city, between.survey)
    assert {place: row.public_id for place, row in assets(city).items()} == before


def test_r7_an_alias_leads_to_the_id_that_carries_the_track(city: Grove) -> None:
    near, next_to_it = (107.0, 100.0), (114.0, 100.0)
    look(city, "2021-05-01", A)
    look(city, "2022-05-01", A, near)
    look(city, "2023-05-01", A, near, next_to_it)
    first, second, third = (assets(city)[round(x), 100].public_id for x in (100, 107, 114))
    said(city, DecisionKind.MERGE, "2024-01-01", asset=third, other_asset=second)
    said(city, DecisionKind.MERGE, "2024-02-01", asset=second, other_asset=first)
    with city.database.transaction() as connection:
        grove = cities.get_city(connection, CODE)
        found = decisions.place_of_asset(connection, grove, third, noon("2024-03-01"))
    assert found.public_id == first


def alias_of(city: Grove, public: str) -> str | None:
    query = text(
        "SELECT b.public_id FROM urban_inventory.asset a"
        " JOIN urban_inventory.asset b ON b.city_id = a.city_id AND b.id = a.alias_of WHERE a.public_id = :id"
    )
    with city.database.transaction(read_only=True) as connection:
        return connection.execute(query, {"id": public}).scalar_one_or_none()


def test_r7_an_id_merged_away_does_not_come_back_as_the_name_of_the_other_track(city: Grove) -> None:
    near = (107.0, 100.0)
    second = look(city, "2022-05-01", A, near)
    older, newer = (assets(city)[x, 100].public_id for x in (100, 107))
    said(city, DecisionKind.MERGE, "2024-01-01", asset=older, other_asset=newer)
    # Earlier imagery shows the younger one alone: it is the longer known now, and the older its alias.
    look(city, "2021-05-01", near)
    assert alias_of(city, older) == newer
    withdraw(city, second.survey)
    assert assets(city)[107, 100].public_id == newer
    check_rebuild(city)


# --- R9: absence -----------------------------------------------------------------------------------------


def test_r9_where_a_person_confirmed_the_felling_a_new_hit_is_a_new_tree_that_replaces_it(
    city: Grove,
) -> None:
    look(city, "2020-05-01", A, B)
    old = assets(city)[100, 100].public_id
    look(city, "2021-05-01", B)
    look(city, "2022-05-01", B)
    assert assets(city)[100, 100].status == "gone"
    said(city, DecisionKind.REJECT, "2022-06-01", asset=old, reason="felled")
    look(city, "2023-05-01", A, B)
    assert total(city).count == 2
    with city.database.transaction() as connection:
        replaced = connection.execute(
            text(
                "SELECT o.public_id FROM urban_inventory.asset n JOIN urban_inventory.asset o"
                " ON o.city_id = n.city_id AND o.id = n.replaces"
            )
        ).scalars()
        assert list(replaced) == [old]


def test_r9_a_replacement_names_what_it_replaces_in_the_store(city: Grove) -> None:
    big = make_seen([(A[0] + BASE[0], A[1] + BASE[1])], size_m=9.0, origin=BASE)
    box = shapely.box(*BASE, BASE[0] + 400, BASE[1] + 400)
    city.store(make_survey(box, noon("2020-05-01"), big))
    old = assets(city)[100, 100].public_id
    look(city, "2021-05-01", B)
    look(city, "2022-05-01", B)
    small = make_seen([(A[0] + BASE[0], A[1] + BASE[1])], size_m=2.0, origin=BASE)
    city.store(make_survey(box, noon("2023-05-01"), small))
    with city.database.transaction() as connection:
        pairs = connection.execute(
            text(
                "SELECT n.public_id, o.public_id FROM urban_inventory.asset n"
                " JOIN urban_inventory.asset o ON o.city_id = n.city_id AND o.id = n.replaces"
            )
        ).all()
    ((new, replaced),) = pairs
    assert (replaced, new != old) == (old, True)


# --- R1: the order of ingest ----------------------------------------------------------------------------

WEST, EAST = (0.0, 0.0, 400.0, 400.0), (2_600.0, 0.0, 3_000.0, 400.0)
FAR = (2_700.0, 100.0)


def whole(city: Grove) -> None:
    """A first look at the whole city, each cell of which is listed by itself."""
    places = [(x, y) for x in range(60, 3_000, 100) for y in range(60, 2_000, 100)]
    look(city, "2020-05-01", *places, ground=(0.0, 0.0, 3_000.0, 2_000.0))


@pytest.fixture
def folded_by_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the city is: as in a large one."""
    monkeypatch.setattr(cells, "GROUP_LEAST_HITS", 1)
    monkeypatch.setattr(refolding, "_EVERYTHING_FROM_SHARE", 2.0)


@pytest.mark.usefixtures("folded_by_cell")
def test_r1_another_leading_scene_speaks_for_the_far_end_of_its_look(city: Grove) -> None:
    whole(city)
    city.choose(CROWNS)
    look(city, "2021-05-01", A, B, ground=WEST, pixels="b" * 64)
    box = shapely.box(EAST[0] + BASE[0], EAST[1] + BASE[1], EAST[2] + BASE[0], EAST[3] + BASE[1])
    seen = make_seen([(FAR[0] + BASE[0], FAR[1] + BASE[1])], origin=BASE)
    leading = make_survey(box, noon("2021-05-01"), seen, pixels="a" * 64)
    city.store(leading)
    city.store(leading.by(CANOPIES, seen))
    city.choose(CANOPIES)
    check_fresh(city)


@pytest.mark.usefixtures("folded_by_cell")
def test_r1_a_far_scene_may_turn_the_order_of_two_looks_of_one_instant(city: Grove) -> None:
    whole(city)
    look(city, "2021-05-01", A, B, ground=WEST, pixels="c" * 64, source="plane")
    look(city, "2021-05-01", (102.0, 101.0), C, ground=WEST, pixels="b" * 64, source="drone")
    look(city, "2021-05-01", FAR, ground=EAST, pixels="a" * 64, source="plane")
    check_fresh(city)


def test_r1_new_areas_read_looks_of_one_instant_in_the_order_of_the_fold(city: Grove) -> None:
    city.choose(CANOPIES)
    look(city, "2021-05-01", A, pixels="a" * 64, source="drone", card=CANOPIES)
    look(city, "2021-05-01", A, pixels="b" * 64, source="plane")
    assert city.areas(0, date(2020, 1, 1))
    check_rebuild(city)


# --- R11: decisions --------------------------------------------------------------------------------------


def test_r11_a_decision_waits_for_imagery_that_is_withdrawn_and_binds_again(city: Grove) -> None:
    first = look(city, "2021-05-01", A, B)
    said(city, DecisionKind.REJECT, "2021-06-01", asset=assets(city)[100, 100].public_id)
    withdraw(city, first.survey)
    assert assets(city) == {}
    look(city, "2020-05-01", A, B)  # older imagery comes in: the decision speaks of this place
    assert listed(city) == {(150, 100)}
    assert listed(city, "2021-05-31") == {(100, 100), (150, 100)}
    restore(city, first.survey)
    assert listed(city) == {(150, 100)}


@pytest.mark.parametrize("kind", [DecisionKind.VERIFY, DecisionKind.ADD])
def test_r11_what_a_person_stood_before_stays_under_its_id_when_its_imagery_is_withdrawn(
    city: Grove, kind: DecisionKind
) -> None:
    first = look(city, "2021-05-01", A, B)
    before = assets(city)
    asset = before[100, 100].public_id
    if kind is DecisionKind.VERIFY:
        said(city, kind, "2021-06-01", asset=asset)
    else:
        said(city, kind, "2021-06-01", class_name="tree", lon_lat=place_lon_lat((100.3, 100.0)))
    said(city, DecisionKind.DESCRIBE, "2021-07-01", asset=asset, details={"text": "oak"})
    withdraw(city, first.survey)
    (left,) = assets(city).values()
    assert (left.public_id, left.listed, left.verified) == (asset, True, True)
    check_rebuild(city)
    look(city, "2024-05-01", A, B)
    assert assets(city)[100, 100].public_id == asset
    restore(city, first.survey)
    assert {place: row.public_id for place, row in assets(city).items()} == {
        place: row.public_id for place, row in before.items()
    }
    check_rebuild(city)


def test_r11_detections_dated_up_to_a_decision_do_not_undo_it_whatever_model_found_them(city: Grove) -> None:
    first = look(city, "2021-05-01", A, B)
    said(city, DecisionKind.REJECT, "2023-06-01", asset=assets(city)[100, 100].public_id)
    look(city, "2022-05-01", A, B, source="drone")  # ingested later, dated before
    scene = city.scenes[first.scene]
    city.store(scene.by(CANOPIES, scene.seen))
    assert city.choose(CANOPIES)
    assert listed(city) == {(150, 100)}
    assert listed(city, "2022-06-01") == {(100, 100), (150, 100)}


@pytest.mark.parametrize("last", [DecisionKind.VERIFY, DecisionKind.REJECT])
def test_r11_decisions_of_one_instant_hold_in_the_order_of_recording(city: Grove, last: DecisionKind) -> None:
    look(city, "2021-05-01", A, B)
    asset = assets(city)[100, 100].public_id
    kinds = [DecisionKind.VERIFY, DecisionKind.REJECT]
    for kind in sorted(kinds, key=lambda kind: kind is last):
        said(city, kind, "2021-06-01", asset=asset)
    assert assets(city)[100, 100].verified == (last is DecisionKind.VERIFY)


def test_r11_a_decision_on_the_instant_of_a_look_comes_after_it(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    said(city, DecisionKind.REJECT, "2021-05-01", asset=assets(city)[100, 100].public_id)
    assert listed(city, "2021-05-01") == {(150, 100)}


def test_r11_a_review_is_opened_by_a_miss_left_out_of_low_and_closed_by_an_answer(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    asset = assets(city)[100, 100].public_id
    said(city, DecisionKind.VERIFY, "2021-06-01", asset=asset)
    said(city, DecisionKind.VERIFY, "2021-06-01", asset=assets(city)[150, 100].public_id)
    assert total(city, "2021-07-01").low == 2
    look(city, "2022-05-01", B)
    opened = assets(city)[100, 100]
    assert (opened.status, opened.review, opened.listed) == ("doubtful", True, True)
    assert (total(city).count, total(city).low) == (2, 1)
    said(city, DecisionKind.VERIFY, "2022-06-01", asset=asset)
    answered = assets(city)[100, 100]
    assert (answered.status, answered.review, answered.listed) == ("present", False, True)
    assert total(city).low == 2


def test_r11_a_review_answered_with_no_takes_it_off_the_list(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    asset = assets(city)[100, 100].public_id
    said(city, DecisionKind.VERIFY, "2021-06-01", asset=asset)
    look(city, "2022-05-01", B)
    said(city, DecisionKind.REJECT, "2022-06-01", asset=asset)
    state = assets(city)[100, 100]
    assert (state.status, state.review, state.listed) == ("rejected", False, False)


def test_r11_described_and_split_as_told(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    asset = assets(city)[100, 100].public_id
    said(city, DecisionKind.DESCRIBE, "2021-06-01", asset=asset, details={"species": "oak"})
    said(city, DecisionKind.DESCRIBE, "2021-06-02", asset=asset, details={"height": 7})
    said(city, DecisionKind.SPLIT, "2021-07-01", asset=asset, lon_lat=place_lon_lat((104.0, 100.0)))
    assert assets(city)[100, 100].details == {"species": "oak", "height": 7}
    assert listed(city) == {(100, 100), (104, 100), (150, 100)}
    assert len({row.public_id for row in assets(city).values()}) == 3


def test_r11_of_two_put_on_one_spot_the_first_is_met_first_by_whatever_fold(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    asset = assets(city)[100, 100].public_id
    spot = place_lon_lat((104.0, 103.0))
    for _ in range(2):
        said(city, DecisionKind.SPLIT, "2022-05-01", asset=asset, lon_lat=spot)
    one_of_them = assets(city)[104, 103].public_id
    said(city, DecisionKind.REJECT, "2023-05-01", asset=one_of_them)
    check_fresh(city)
    check_rebuild(city)


def test_r11_merge_stands_for_hits_on_both_in_later_looks(city: Grove) -> None:
    near = (107.0, 100.0)
    look(city, "2021-05-01", A, near, B)
    one, other = (assets(city)[x, 100].public_id for x in (100, 107))
    said(city, DecisionKind.MERGE, "2021-06-01", asset=one, other_asset=other)
    look(city, "2022-05-01", A, near, B)
    look(city, "2023-05-01", near, B)
    present = {row.public_id for row in assets(city).values() if row.listed}
    assert len(present) == total(city).count == 2
    assert len({one, other} & present) == 1
    assert {alias_of(city, one), alias_of(city, other)} & present


def test_r11_a_move_holds_against_later_hits_beside_it(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    asset = assets(city)[100, 100].public_id
    said(city, DecisionKind.VERIFY, "2021-06-01", asset=asset)
    said(city, DecisionKind.MOVE, "2021-06-02", asset=asset, lon_lat=place_lon_lat((102.0, 101.0)))
    look(city, "2022-05-01", A, B)
    assert assets(city)[102, 101].public_id == asset


def test_r11_a_move_alone_holds_against_later_hits_beside_it(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    asset = assets(city)[100, 100].public_id
    said(city, DecisionKind.MOVE, "2021-06-02", asset=asset, lon_lat=place_lon_lat((103.0, 100.0)))
    look(city, "2022-05-01", A, B)
    assert assets(city)[103, 100].public_id == asset


# --- R12, R13: counts ------------------------------------------------------------------------------------


def test_r12_counts_use_the_position_and_the_areas_in_force_on_the_date(city: Grove) -> None:
    border = 1_500.0  # between the districts, until 2023 moves it 100 m east
    tree = (border - 10, 100.0)
    look(city, "2021-05-01", tree, ground=(1_000, 0, 2_000, 400))
    asset = assets(city)[1_490, 100].public_id
    said(city, DecisionKind.MOVE, "2022-01-01", asset=asset, lon_lat=place_lon_lat((border + 5, 100.0)))
    assert city.areas(1, date(2023, 1, 1))
    found = {
        day: {
            row.area
            for row in count(
                city.database, CODE, level="district", classes=["tree"], as_of=date.fromisoformat(day)
            )
            if row.count
        }
        for day in ("2021-06-01", "2022-06-01", "2023-06-01")
    }
    assert found == {"2021-06-01": {"W"}, "2022-06-01": {"E"}, "2023-06-01": {"W"}}


def test_r13_an_evaluated_model_gives_an_interval_and_an_unvalidated_one_gives_none(city: Grove) -> None:
    first = look(city, "2021-05-01", A, B)
    row = total(city)
    assert row.low is not None
    assert row.high is not None
    assert (row.low < 2 < row.high, row.basis) == (True, "card:crowns@1")
    scene = city.scenes[first.scene]
    city.store(scene.by(CANOPIES, scene.seen))
    assert city.choose(CANOPIES)
    row = total(city)
    assert (row.count, row.low, row.high, row.basis) == (2, None, None, "unvalidated:canopies@1")


def test_r13_a_count_names_its_oldest_and_newest_look(city: Grove) -> None:
    look(city, "2021-05-01", A, B)
    look(city, "2023-05-01", A, ground=(0, 0, 120, 400))
    row = total(city)
    assert (row.oldest_look, row.newest_look) == (date(2021, 5, 1), date(2023, 5, 1))
    assert total(city, "2020-01-01").count is None


def test_r13_a_drawn_polygon_is_covered_when_its_count_is(city: Grove) -> None:
    look(city, "2021-05-01", A, campaign="spring")
    second = look(city, "2021-05-09", A, campaign="spring")
    withdraw(city, second.survey)
    west, north = place_lon_lat((50.0, 50.0)), place_lon_lat((150.0, 150.0))
    (row,) = count(
        city.database, CODE, classes=["tree"], polygon=shapely.box(*west, *north), as_of=date(2021, 5, 2)
    )
    assert (row.count, row.coverage) == (1, pytest.approx(1.0, abs=1e-3))


# --- R14, R15: history and attribution -------------------------------------------------------------------


def test_r14_replaying_to_an_instant_gives_what_was_known_then(city: Grove) -> None:
    first = look(city, "2021-05-01", A, B)
    look(city, "2022-05-01", A)
    known, at = stored(city), database_clock(city.database)
    withdraw(city, first.survey)
    said(city, DecisionKind.REJECT, "2022-05-02", asset=assets(city)[100, 100].public_id, author="an")
    assert stored(city) != known
    with city.database.transaction(read_only=True) as connection:
        assert replayed(connection, at) == known
        causes = connection.execute(
            text("SELECT cause, author FROM urban_inventory.change GROUP BY 1, 2 ORDER BY min(id)")
        ).all()
    assert [tuple(row) for row in causes] == [
        ("ingest", "local"),
        ("survey withdrawn", "local"),
        ("decision reject", "an"),
    ]


def stored(city: Grove) -> list[str]:
    with city.database.transaction(read_only=True) as connection:
        return known_now(connection)


def test_r15_an_asset_names_its_newest_evidence_also_after_a_withdrawal(city: Grove) -> None:
    first, second = look(city, "2021-05-01", A), look(city, "2022-05-01", A)
    assert assets(city)[100, 100].survey == second.survey
    withdraw(city, second.survey)
    assert assets(city)[100, 100].survey == first.survey
    said(city, DecisionKind.VERIFY, "2023-01-01", asset=assets(city)[100, 100].public_id)
    state = assets(city)[100, 100]
    assert state.decision_id is not None
    look(city, "2024-05-01", A)
    assert assets(city)[100, 100].decision_id is None


def test_r15_every_scene_keeps_its_licence_and_attribution(city: Grove) -> None:
    look(city, "2021-05-01", A, source="one", licence="ODbL", attribution="Fliers")
    look(city, "2022-05-01", A, source="two", licence=None, attribution=None)
    query = text("SELECT licence, attribution FROM urban_inventory.scene ORDER BY id")
    with city.database.transaction(read_only=True) as connection:
        rows = [tuple(row) for row in connection.execute(query)]
    assert rows == [("ODbL", "Fliers"), (None, None)]

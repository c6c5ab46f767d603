"""The life of one tree, on a drawn town whose trees come and go as drawn."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from detection.errors import CallerError, UnknownName
from inventory import evidence_changes
from inventory.decisions import NewDecision, decide
from inventory.domain.evidence import DecisionKind
from inventory.life_picture import draw_life
from inventory.lives import Life, life_of
from inventory.store.database import Database
from tests.support.scenes import ORIGIN
from tests.support.town import CODE, GRID, Town, make_town

TREE, NEIGHBOUR = GRID[24], GRID[25]
REST = [place for place in GRID if place not in (TREE, NEIGHBOUR)]
BLUE, ORANGE = (64, 160, 255), (255, 176, 0)


@pytest.fixture
def town(database: Database, tmp_path: Path) -> Town:
    return make_town(database, tmp_path)


def fly(town: Town, year: int, *, tree: bool = True, neighbour: bool = True) -> None:
    """A look at the whole town; its tree in the middle and the neighbour are there or not."""
    trees = [*REST, *([TREE] if tree else []), *([NEIGHBOUR] if neighbour else [])]
    town.ingest(town.picture(f"y{year}", trees), f"{year}-05-01", attribution="Town Fliers")


def at(town: Town, place: tuple[int, int], *, listed: bool | None = True) -> str:
    """The id of what stands where a tree was drawn."""
    x, y = ORIGIN[0] + (place[0] + 4) * 0.2, ORIGIN[1] - (place[1] + 4) * 0.2
    query = text(
        "SELECT a.public_id FROM urban_inventory.asset_state s"
        " JOIN urban_inventory.asset a ON a.city_id = s.city_id AND a.id = s.asset_id"
        " WHERE s.valid_to IS NULL AND (CAST(:listed AS boolean) IS NULL OR s.listed = :listed)"
        " ORDER BY (s.x - :x) ^ 2 + (s.y - :y) ^ 2, s.listed DESC LIMIT 1"
    )
    with town.database.transaction() as connection:
        return str(connection.execute(query, {"x": x, "y": y, "listed": listed}).scalar_one())


def life(town: Town, asset: str, **asked: date) -> Life:
    return life_of(town.database, CODE, asset, **asked)


def told(life: Life) -> list[str]:
    return [event.event for event in life.events]


def say(town: Town, kind: DecisionKind, asset: str, day: str = "2025-01-01", **more: object) -> str:
    when = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC)
    new = NewDecision(kind=kind, asset=asset, at=when, author="ana", reason="saw it", **more)  # type: ignore[arg-type]
    return decide(town.database, CODE, new, taxonomy=town.taxonomy)


def test_r9_a_felled_tree_is_missed_then_gone_within_an_interval(town: Town) -> None:
    for year in (2023, 2024, 2025, 2026):
        fly(town, year, tree=year < 2025)
    tree = life(town, at(town, TREE, listed=None))
    assert told(tree) == ["first_seen", "listed", "seen", "missed", "unlisted", "gone"]
    assert (tree.state and tree.state.status, tree.state and tree.state.listed) == ("gone", False)
    gone = next(event for event in tree.events if event.event == "gone").as_json()
    assert (gone["last_seen"][:10], gone["first_missed"][:10]) == ("2024-05-01", "2025-05-01")
    missed = next(event for event in tree.events if event.event == "missed")
    assert missed.status == "doubtful"
    assert missed.look is not None
    assert missed.recorded is not None
    assert missed.recorded.cause == "ingest"
    assert missed.recorded.subject == missed.look.scene


def test_r7_gone_and_seen_again_is_one_life(town: Town) -> None:
    for year in (2022, 2023, 2024, 2025):
        fly(town, year, tree=year not in (2023, 2024))
    tree = life(town, at(town, TREE))
    assert told(tree) == ["first_seen", "listed", "missed", "unlisted", "gone", "seen", "listed"]
    assert tree.events[-2].details == {"after": "gone"}


def test_a_planted_tree_was_not_there_when_the_ground_was_looked_at_before(town: Town) -> None:
    fly(town, 2023, tree=False)
    fly(town, 2024)
    tree = life(town, at(town, TREE, listed=None))
    assert told(tree)[:2] == ["not_yet", "first_seen"]


def test_as_of_tells_the_life_until_then(town: Town) -> None:
    for year in (2023, 2024, 2025):
        fly(town, year, tree=year < 2024)
    tree = life(town, at(town, TREE, listed=None), as_of=date(2024, 5, 1))
    assert told(tree) == ["first_seen", "listed", "missed", "unlisted"]
    assert tree.state is not None
    assert tree.state.status == "doubtful"
    assert life(town, tree.asked, as_of=date(2022, 1, 1)).state is None


def test_r11_decisions_are_told_with_author_reason_and_what_became_of_them(town: Town) -> None:
    fly(town, 2024)
    asset = at(town, TREE)
    verified = say(town, DecisionKind.VERIFY, asset)
    moved = say(town, DecisionKind.MOVE, asset, "2025-02-01", lon_lat=_east_of(town, asset))
    say(town, DecisionKind.RETRACT, asset, "2025-03-01", retracts=verified)
    tree = life(town, asset)
    assert told(tree) == ["first_seen", "listed", "verify", "move", "retract"]
    verify, move, retract = (event.as_json() for event in tree.events[2:])
    assert (verify["decision"], verify["author"], verify["reason"]) == (verified, "ana", "saw it")
    assert verify["taken_back_by"] == retract["decision"]
    assert retract["retracts"] == verified
    assert (move["decision"], move["by_m"]) == (moved, pytest.approx(2.4, abs=0.2))


def _east_of(town: Town, asset: str) -> tuple[float, float]:
    state = life(town, asset).state
    assert state is not None
    return state.lon_lat[0] + 0.00003, state.lon_lat[1]


def test_an_alias_leads_to_the_asset_that_carries_it_and_says_so(town: Town) -> None:
    fly(town, 2024)
    kept, merged = sorted((at(town, TREE), at(town, NEIGHBOUR)))
    say(town, DecisionKind.MERGE, kept, other_asset=merged)
    one, other = life(town, kept), life(town, merged)
    carrier = one.names.public_id
    assert other.names.public_id == carrier
    assert {kept, merged} == {carrier, *one.names.aliases}
    shown = other.as_json()
    assert (shown["id"], shown["asked"]) == (carrier, merged)
    assert "merge" in told(one)


def test_a_verified_tree_that_is_missed_opens_a_review(town: Town) -> None:
    fly(town, 2024)
    asset = at(town, TREE)
    say(town, DecisionKind.VERIFY, asset)
    fly(town, 2026, tree=False)
    tree = life(town, asset)
    assert told(tree) == ["first_seen", "listed", "verify", "missed"]
    assert tree.events[-1].details == {"review": "opened"}
    assert tree.as_json()["review"] is True
    assert tree.as_json()["listed"] is True


def test_withdrawn_evidence_is_no_part_of_a_life_but_of_its_record(town: Town) -> None:
    fly(town, 2024)
    asset = at(town, TREE)
    with town.database.transaction() as connection:
        survey = connection.execute(text("SELECT public_id FROM urban_inventory.survey")).scalar_one()
    evidence_changes.withdraw_survey(town.database, CODE, survey, taxonomy=town.taxonomy)
    tree = life(town, asset)
    assert (tree.state, tree.events) == (None, ())
    assert [one.cause for one in tree.record] == ["ingest", "survey withdrawn"]
    assert tree.as_json()["position"] is None
    with pytest.raises(CallerError, match="no look to show"):
        draw_life(tree, town.folder / "none.png")


def test_an_id_that_was_never_given_is_unknown(town: Town) -> None:
    with pytest.raises(UnknownName, match="no asset “nobody”"):
        life(town, "nobody")


def test_the_picture_boxes_hits_marks_misses_and_names_files_that_are_gone(town: Town) -> None:
    for year in (2023, 2024, 2025):
        fly(town, year, tree=year < 2025)
    tree = life(town, at(town, TREE, listed=None))
    out = town.folder / "life.png"
    assert draw_life(tree, out) == 3
    whole = _colours(out)
    assert {BLUE, ORANGE, (0, 255, 0)} <= whole
    (town.folder / "y2025.tif").rename(town.folder / "moved.tif")
    assert draw_life(tree, out) == 3
    with Image.open(out) as image:
        width = image.width
        right = image.crop((width - 22 - 320, 100, width - 22, 380)).convert("RGB")
    assert ORANGE not in {colour for _, colour in right.getcolors(maxcolors=1 << 20) or []}


def test_the_picture_of_a_scene_whose_file_was_overwritten_shows_nothing_wrong(town: Town) -> None:
    fly(town, 2023)
    tree = life(town, at(town, TREE))
    town.picture("y2023", [], size_px=(100, 100))
    out = town.folder / "life.png"
    assert draw_life(tree, out) == 1
    assert (0, 255, 0) not in _colours(out)


def test_a_picture_that_cannot_be_written_is_refused(town: Town) -> None:
    fly(town, 2023)
    with pytest.raises(CallerError, match="cannot be written"):
        draw_life(life(town, at(town, TREE)), town.folder / "life.nonsense")


def _colours(file: Path) -> set[tuple[int, ...]]:
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return set(map(tuple, np.unique(pixels, axis=0).tolist()))

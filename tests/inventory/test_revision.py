"""What a newly drawn level changes in the stored versions (R12)."""

from datetime import date

import pytest

from detection.errors import Conflict
from inventory.domain.revision import revise
from tests.support.areas import make_drawn, make_version, square

SPRING, AUTUMN = date(2026, 3, 1), date(2026, 9, 1)


def test_the_first_version_of_a_level_has_no_lower_bound() -> None:
    revision = revise([make_drawn("a", square(0, 0))], [], rank=0, parents={}, on=SPRING)
    (version,) = revision.inserted
    assert (version.valid_from, version.valid_to) == (None, None)
    assert revision.added == ("a",)


def test_the_same_again_changes_nothing() -> None:
    revision = revise(
        [make_drawn("a", square(0, 0))], [make_version("a", square(0, 0))], rank=0, parents={}, on=SPRING
    )
    assert not revision.changes_anything
    assert revision.unchanged == 1


def test_a_changed_area_gets_a_new_version_from_that_day_on() -> None:
    stored = [make_version("a", square(0, 0), id=7)]
    revision = revise([make_drawn("a", square(0, 0, 2))], stored, rank=0, parents={}, on=SPRING)
    (old,), (new,) = revision.replaced, revision.inserted
    assert (old.id, old.valid_from, old.valid_to) == (7, None, SPRING)
    assert (new.valid_from, new.valid_to) == (SPRING, None)
    assert revision.changed == ("a",)


def test_an_area_that_is_missing_ends_and_a_new_one_of_a_known_level_begins() -> None:
    stored = [make_version("a", square(0, 0), id=7)]
    revision = revise([make_drawn("b", square(0, 0))], stored, rank=0, parents={}, on=SPRING)
    assert [version.valid_to for version in revision.replaced] == [SPRING]
    assert [version.valid_from for version in revision.inserted] == [SPRING]
    assert (revision.added, revision.ended) == (("b",), ("a",))


def test_a_second_file_of_one_day_takes_the_place_of_the_first() -> None:
    stored = [
        make_version("a", square(0, 0), id=1, valid_to=SPRING),
        make_version("a", square(0, 0, 2), id=2, valid_from=SPRING),
        make_version("b", square(5, 0), id=3, valid_from=SPRING),
    ]
    revision = revise([make_drawn("a", square(0, 0, 3))], stored, rank=0, parents={}, on=SPRING)
    assert [(version.id, version.valid_from) for version in revision.replaced] == [(2, SPRING)]
    assert [version.id for version in revision.deleted] == [3]
    assert not revision.inserted


def test_correcting_mends_the_version_in_place_and_leaves_what_is_not_drawn() -> None:
    stored = [
        make_version("a", square(0, 0), id=1, valid_to=AUTUMN),
        make_version("a", square(0, 0, 2), id=2, valid_from=AUTUMN),
        make_version("b", square(5, 0), id=3),
    ]
    revision = revise(
        [make_drawn("a", square(0, 0, 1.5))], stored, rank=0, parents={}, on=SPRING, correct=True
    )
    assert [(version.id, version.valid_to) for version in revision.replaced] == [(1, AUTUMN)]
    assert not revision.inserted
    assert not revision.deleted
    assert revision.ended == ()


def test_a_forgotten_area_has_been_there_since_the_levels_last_change() -> None:
    always = [make_version("a", square(0, 0))]
    since = [make_version("a", square(0, 0), valid_from=SPRING)]
    for stored, begun in ((always, None), (since, SPRING)):
        revision = revise(
            [make_drawn("b", square(1, 0))], stored, rank=0, parents={}, on=AUTUMN, correct=True
        )
        assert [version.valid_from for version in revision.inserted] == [begun]


def test_a_level_that_already_changes_later_is_refused() -> None:
    stored = [make_version("a", square(0, 0), valid_from=AUTUMN)]
    with pytest.raises(Conflict, match="already changes on 2026-09-01"):
        revise([make_drawn("a", square(0, 0, 2))], stored, rank=0, parents={}, on=SPRING)


def test_correcting_an_area_into_a_day_between_its_versions_is_refused() -> None:
    stored = [make_version("a", square(0, 0), valid_from=AUTUMN)]
    with pytest.raises(Conflict, match="not in force"):
        revise([make_drawn("a", square(0, 0))], stored, rank=0, parents={}, on=SPRING, correct=True)

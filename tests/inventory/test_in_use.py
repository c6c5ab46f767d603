"""R3: which models a city uses, and whose runs are evidence."""

from datetime import UTC, datetime

from inventory.domain.in_use import Standing, models_in_use, standings

FINE, COARSE, NEW, NEWER = "fine", "coarse", "new", "newer"
LISTED = (FINE, COARSE)


def at(*models: str) -> list[tuple[str, datetime]]:
    return [(model, datetime(2025, number, 1, tzinfo=UTC)) for number, model in enumerate(models, start=1)]


def test_r3_before_any_choice_the_taxonomy_s_models_are_in_use() -> None:
    assert models_in_use(LISTED, []) == (FINE, COARSE)
    assert standings(LISTED, []) == [Standing(model=FINE, rank=2), Standing(model=COARSE, rank=1)]


def test_r3_a_chosen_model_leads_and_those_before_it_fill_in() -> None:
    assert models_in_use(LISTED, at(NEW, NEWER)) == (NEWER, NEW, FINE, COARSE)
    assert models_in_use(LISTED, at(COARSE)) == (COARSE, FINE)


def test_r3_choosing_back_is_a_switch() -> None:
    assert models_in_use(LISTED, at(NEW, NEWER, NEW)) == models_in_use(LISTED, at(NEW))
    assert models_in_use(LISTED, at(NEW, FINE)) == (FINE, COARSE)
    assert models_in_use(LISTED, at(NEW, FINE, NEW)) == (NEW, FINE, COARSE)


def test_r3_of_a_model_chosen_back_from_only_runs_of_its_time_stay() -> None:
    choices = at(NEW, FINE)
    (left,) = (one for one in standings(LISTED, choices) if one.model == NEW)
    assert (left.since, left.until) == (choices[0][1], choices[1][1])
    assert left.rank < min(one.rank for one in standings(LISTED, choices) if one.model != NEW)

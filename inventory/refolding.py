"""After evidence changed: which surveys are in force, what they say together, and storing it (R1, R3).

Every use case that touches evidence ends here, inside its own transaction and under the city's writer lock.
"""

from collections.abc import Iterable

from detection.taxonomy import ClassKind, Taxonomy
from inventory.domain.fold import SurveyTally, fold
from inventory.domain.identity import name_tracks
from inventory.domain.places import City
from inventory.store import coverage, evidence, identities, states, surveys
from inventory.store.database import Connection
from inventory.store.states import Cause


def refold(
    connection: Connection, city: City, taxonomy: Taxonomy, class_names: Iterable[str], cause: Cause
) -> dict[int, SurveyTally]:
    """Folds the evidence of each class from nothing and stores what changed.

    Returns:
        What each survey in force brought, by its row number; of several classes, the sum.
    """
    tallies: dict[int, SurveyTally] = {}
    for name in sorted(set(class_names)):
        for survey_id, tally in _refold_class(connection, city, taxonomy, name, cause).items():
            before = tallies.get(survey_id)
            tallies[survey_id] = tally if before is None else _sum(before, tally)
    return tallies


def _refold_class(
    connection: Connection, city: City, taxonomy: Taxonomy, class_name: str, cause: Cause
) -> dict[int, SurveyTally]:
    asset_class = taxonomy.get(class_name)
    chosen = surveys.model_choices(connection, city, class_name)
    # Before any choice the taxonomy's models are in force, its first before its second.
    unchosen = [model for model in reversed(asset_class.models) if model not in chosen]
    surveys.derive_in_force(connection, city, class_name, [*unchosen, *chosen])
    facts = evidence.load_evidence(connection, city, asset_class)
    static = asset_class.kind is ClassKind.STATIC
    folded = fold(facts, static=static)
    named = name_tracks(folded, identities.load_ids(connection, city, class_name))
    asset_of_track = (
        identities.save_ids(connection, city, class_name, folded, named) if static else named.asset_of_track
    )
    states.replace_states(connection, city, class_name, folded, asset_of_track, cause)
    coverage.replace_coverage(connection, city, class_name, facts)
    return folded.tallies


def _sum(one: SurveyTally, other: SurveyTally) -> SurveyTally:
    return SurveyTally(
        new=one.new + other.new,
        matched=one.matched + other.matched,
        missed=one.missed + other.missed,
        shift=one.shift or other.shift,
    )

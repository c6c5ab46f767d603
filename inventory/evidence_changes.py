"""Saying something about evidence: withdraw, restore, redate, locate, purge, choose a model, rebuild.

What is said holds for every as-of date (R1): each use case changes one row and folds anew, in one
transaction, and appends what was said and by whom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from detection.errors import Conflict, UnknownName
from detection.imagery.scene import open_scene
from detection.models import Model
from detection.taxonomy import Taxonomy
from inventory.dates import instant_in
from inventory.domain.places import City
from inventory.refolding import refold
from inventory.store import cities, states, surveys
from inventory.store.database import Connection, Database, Patience
from inventory.store.states import Cause
from inventory.store.surveys import SceneRow, SurveyRow


def withdraw_survey(
    database: Database, city_code: str, survey: str, *, taxonomy: Taxonomy, author: str = "local"
) -> SurveyRow:
    """Takes a survey out of the evidence.

    Raises:
        UnknownName: no such city or survey.
        Conflict: it is withdrawn already.
    """
    return _set_withdrawn(database, city_code, survey, taxonomy, author, withdrawn=True)


def restore_survey(
    database: Database, city_code: str, survey: str, *, taxonomy: Taxonomy, author: str = "local"
) -> SurveyRow:
    """Puts a withdrawn survey back.

    Raises:
        UnknownName: no such city or survey.
        Conflict: it is not withdrawn.
    """
    return _set_withdrawn(database, city_code, survey, taxonomy, author, withdrawn=False)


def _set_withdrawn(
    database: Database, city_code: str, public: str, taxonomy: Taxonomy, author: str, *, withdrawn: bool
) -> SurveyRow:
    said = "withdrawn" if withdrawn else "restored"
    with database.transaction(Patience.JOB) as connection:
        city = _locked(connection, city_code)
        row = surveys.get_survey(connection, city, public)
        if row.withdrawn == withdrawn:
            raise Conflict(
                f"survey {public} is {'withdrawn already' if withdrawn else 'not withdrawn'}",
                do=f"See what is: urban-inventory survey list --city {city_code}.",
            )
        surveys.set_withdrawn(connection, row.id, withdrawn=withdrawn)
        surveys.log_event(connection, city, said, public, author=author)
        _refold(connection, city, taxonomy, row.classes, f"survey {said}", public, author)
        return surveys.get_survey(connection, city, public)


def redate_scene(
    database: Database,
    city_code: str,
    scene: str,
    taken_at: datetime,
    *,
    taxonomy: Taxonomy,
    author: str = "local",
) -> SceneRow:
    """Corrects when a scene was taken; unless its campaign was named, it joins that of the new date.

    Raises:
        UnknownName: no such city or scene.
    """
    with database.transaction(Patience.JOB) as connection:
        city = _locked(connection, city_code)
        row = surveys.get_scene(connection, city, scene)
        zone = ZoneInfo(city.time_zone)
        taken_at = instant_in(city, taken_at, where=row.public_id)
        changes: dict[str, object] = {"taken_at": taken_at}
        if row.campaign == row.taken_at.astimezone(zone).date().isoformat():
            of_source = surveys.source_id(connection, city, row.source, licence=None, attribution=None)
            day = taken_at.astimezone(zone).date().isoformat()
            changes["campaign_id"] = surveys.campaign_id(connection, city, of_source, day)
        surveys.update_scene(connection, row.id, **changes)
        surveys.log_event(
            connection,
            city,
            "redated",
            scene,
            author=author,
            before=row.taken_at.isoformat(),
            after=taken_at.isoformat(),
        )
        _refold(connection, city, taxonomy, _classes(connection, city, row), "scene redated", scene, author)
        return surveys.get_scene(connection, city, scene)


def locate_scene(
    database: Database, city_code: str, scene: str, file: Path, *, author: str = "local"
) -> SceneRow:
    """Binds a scene to a file that has moved; its counts do not depend on it.

    Raises:
        UnknownName: no such city or scene.
        SceneUnusable: the file is not readable imagery.
        Conflict: the file holds other pixels.
    """
    found = open_scene(file, allow_unlocated=True)
    with database.transaction() as connection:
        city = _locked(connection, city_code)
        row = surveys.get_scene(connection, city, scene)
        if found.pixel_hash != row.pixel_hash:
            raise Conflict(
                f"the file holds other pixels than scene {scene}", where=str(file), do="Ingest it instead."
            )
        surveys.update_scene(connection, row.id, path=str(file.resolve()))
        surveys.log_event(connection, city, "located", scene, author=author, path=str(file.resolve()))
        return surveys.get_scene(connection, city, scene)


def purge_scene(
    database: Database, city_code: str, scene: str, *, taxonomy: Taxonomy, home: Path, author: str = "local"
) -> SceneRow:
    """Removes a scene's observations and surveys, and its pixels where they are a copy of ours.

    Raises:
        UnknownName: no such city or scene.
        Conflict: it is purged already.
    """
    with database.transaction(Patience.JOB) as connection:
        city = _locked(connection, city_code)
        row = surveys.get_scene(connection, city, scene)
        if row.purged:
            raise Conflict(f"scene {scene} is purged already")
        classes = _classes(connection, city, row)
        surveys.withdraw_all(connection, row.id)
        _refold(connection, city, taxonomy, classes, "scene purged", scene, author)
        surveys.purge_scene(connection, city, row.id)
        surveys.log_event(connection, city, "purged", scene, author=author)
    ours = home / "imagery"
    if row.path is not None and Path(row.path).is_relative_to(ours):
        Path(row.path).unlink(missing_ok=True)
    with database.transaction(read_only=True) as connection:
        return surveys.get_scene(connection, city, scene)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The outcome of choosing a model: its classes, and scenes it has not run on."""

    model: str
    classes: tuple[str, ...]
    scenes_without: tuple[SceneRow, ...]


def choose_model(
    database: Database, city_code: str, model: Model, *, taxonomy: Taxonomy, author: str = "local"
) -> Chosen:
    """Makes a model the one that a city uses for the classes it sees (R3); choosing back is a switch.

    Raises:
        UnknownName: no such city, or the model sees no class of the taxonomy.
    """
    classes = tuple(name for name in model.card.output.classes if name in taxonomy.classes)
    if not classes:
        raise UnknownName(
            f"model {model.card.name} sees no class of the taxonomy",
            do=f"It sees: {', '.join(model.card.output.classes)}.",
        )
    with database.transaction(Patience.JOB) as connection:
        city = _locked(connection, city_code)
        for name in classes:
            surveys.choose_model(connection, city, name, model.card.name)
        surveys.log_event(connection, city, "chosen", model.card.name, author=author, classes=list(classes))
        _refold(connection, city, taxonomy, classes, "model chosen", model.card.name, author)
        left = surveys.scenes_without(connection, city, model.card.name)
    seeing = [row for row in left if model.card.sees(row.scene_kind, row.ground_resolution_m)]
    return Chosen(model=model.card.name, classes=classes, scenes_without=tuple(seeing))


def rebuild(database: Database, city_code: str, *, taxonomy: Taxonomy, author: str = "local") -> None:
    """Folds all evidence from nothing and computes areas anew; the outcome is what was there before.

    Raises:
        UnknownName: no such city.
    """
    with database.transaction(Patience.JOB) as connection:
        city = _locked(connection, city_code)
        classes = {name for row in surveys.list_surveys(connection, city) for name in row.classes}
        classes |= set(cities.classes_of(connection, city.id))
        known = [name for name in sorted(classes) if name in taxonomy.classes]
        cause = Cause(what="rebuild", subject=None, author=author)
        refold(connection, city, taxonomy, known, cause, from_nothing=True)
        states.refresh_areas(connection, city.id)


def _locked(connection: Connection, city_code: str) -> City:
    city = cities.get_city(connection, city_code)
    cities.lock_city(connection, city.id)
    return city


def _classes(connection: Connection, city: City, scene: SceneRow) -> list[str]:
    of_scene = [row for row in surveys.list_surveys(connection, city) if row.scene == scene.public_id]
    return sorted({name for row in of_scene for name in row.classes})


def _refold(
    connection: Connection,
    city: City,
    taxonomy: Taxonomy,
    classes: Sequence[str],
    what: str,
    subject: str | None,
    author: str,
) -> None:
    known = [name for name in classes if name in taxonomy.classes]
    refold(connection, city, taxonomy, known, Cause(what=what, subject=subject, author=author))

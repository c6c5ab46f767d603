"""What is wrong with an installation, and how to mend it: folder, database, models, imagery, sums.

Every check answers, also where the one before it failed; nothing is changed by looking.
"""

import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from detection.errors import UrbanInventoryError
from detection.imagery.scene import open_scene
from detection.models import ModelRegistry
from detection.taxonomy import Taxonomy
from inventory.domain.in_use import models_in_use
from inventory.domain.places import City
from inventory.store import cities, integrity, surveys
from inventory.store.cluster import places_left_behind
from inventory.store.database import Database, Patience, open_database
from inventory.store.server import programs_for, programs_for_new
from inventory.store.surveys import SceneRow

OLDEST_PYTHON = (3, 11)
OLDEST_POSTGRESQL = 14
OLDEST_POSTGIS = (3, 2)
LEAST_FREE_BYTES = 1024**3
"""Below this an ingest may end half-way, and no dump is made before a migration."""
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One answer; ``do`` says how to mend what is wrong."""

    name: str
    ok: bool
    what: str
    do: str | None = None


Say = Callable[[str], None]


def examine(
    home: Path,
    *,
    database_url: str | None,
    registry: ModelRegistry,
    taxonomy: Taxonomy,
    thorough: bool = False,
    say: Say,
) -> Iterator[Check]:
    """Looks over an installation, check by check.

    Args:
        thorough: read every scene's file and compare its pixels; else only files changed since they were
            ingested.
        say: told what takes long.
    """
    yield _python()
    yield _folder(home)
    yield _space(home)
    if database_url is None:
        yield _guarded("PostgreSQL", partial(_programs, home / "postgres" / "data"))
        yield from _left_behind()
    yield from _models(registry)
    with ExitStack() as stack:
        try:
            database = stack.enter_context(open_database(home, database_url=database_url))
        except UrbanInventoryError as error:
            yield _wrong("database", error)
            return
        yield _guarded("database", lambda: _server(database))
        yield _guarded("database role", lambda: _role(database))
        yield from _cities(database, registry, taxonomy, thorough=thorough, say=say)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except UrbanInventoryError as error:
        return _wrong(name, error)


def _wrong(name: str, error: UrbanInventoryError) -> Check:
    what = f"{error.where}: {error.what}" if error.where else error.what
    return Check(name=name, ok=False, what=what, do=error.do)


# --- the machine -----------------------------------------------------------------------------------------


def _python() -> Check:
    ok = sys.version_info[:2] >= OLDEST_PYTHON
    return Check(
        name="Python",
        ok=ok,
        what=platform.python_version(),
        do=None if ok else "Install Python 3.11 or newer, then run scripts/setup.",
    )


def _folder(home: Path) -> Check:
    name = "data folder"
    if not home.exists():
        return Check(name=name, ok=True, what=f"{home}: not made yet")
    if not home.is_dir():
        return Check(
            name=name, ok=False, what=f"{home} is no folder", do="Set URBAN_INVENTORY_HOME to another one."
        )
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Check(
            name=name,
            ok=False,
            what=f"{home}: this user may not write there",
            do="Run as the user it belongs to, or set URBAN_INVENTORY_HOME.",
        )
    if home.stat().st_mode & stat.S_IWOTH:
        return Check(name=name, ok=False, what=f"{home}: everybody may write there", do=f"chmod o-w '{home}'")
    return Check(name=name, ok=True, what=str(home))


def _space(home: Path) -> Check:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    return Check(
        name="space",
        ok=free >= LEAST_FREE_BYTES,
        what=f"{free / 1e9:,.1f} GB free",
        do=None if free >= LEAST_FREE_BYTES else f"Free 1 GB or more where {existing} lies.",
    )


def _programs(data: Path) -> Check:
    # Where the cluster lies elsewhere, opening it below says what is wrong with it.
    programs = programs_for(data) if (data / "PG_VERSION").is_file() else programs_for_new()
    return Check(name="PostgreSQL", ok=True, what=f"{programs.version} with PostGIS, in {programs.folder}")


def _left_behind() -> Iterator[Check]:
    """Databases of data folders that are gone: named, not wrong, since such a folder may only be elsewhere."""
    try:
        places = places_left_behind()
    except OSError:
        return  # of other users, so not ours to look at
    for place, folder in places:
        what = f"{place} held the database of {folder}, which is gone or was renamed"
        yield Check(name="left behind", ok=True, what=f"{what}; if gone for good: rm -r {place}")


def _models(registry: ModelRegistry) -> Iterator[Check]:
    names = registry.names()
    if not names:
        yield Check(
            name="models", ok=False, what="none", do="Install the program again: it brings its models."
        )
    for name in names:
        yield _guarded(f"model {name}", partial(_model, registry, name))


def _model(registry: ModelRegistry, name: str) -> Check:
    model = registry.get(name)
    card = model.card
    without = f"; {', '.join(card.unvalidated)} never evaluated: counts of it have no interval"
    what = f"{card.version}, as its card says{without if card.unvalidated else ''}"
    return Check(name=f"model {name}", ok=True, what=what)


# --- the database ----------------------------------------------------------------------------------------


def _server(database: Database) -> Check:
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        facts = integrity.server_facts(connection)
    what = f"PostgreSQL {facts.postgresql}, PostGIS {facts.postgis}, schema as this program needs it"
    postgis = tuple(int(part) for part in facts.postgis.split(".")[:2])
    if int(facts.postgresql.split(".")[0]) >= OLDEST_POSTGRESQL and postgis >= OLDEST_POSTGIS:
        return Check(name="database", ok=True, what=what)
    return Check(name="database", ok=False, what=what, do="PostgreSQL 14 and PostGIS 3.2 are the oldest.")


def _role(database: Database) -> Check:
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        facts = integrity.server_facts(connection)
    if not facts.excess:
        return Check(name="database role", ok=True, what=f"{facts.role}, unprivileged")
    return Check(
        name="database role",
        ok=False,
        what=f"{facts.role}: {', '.join(facts.excess)}",
        do="Use the role urban_inventory_service in URBAN_INVENTORY_DATABASE_URL (docs/operator.md).",
    )


def _cities(
    database: Database, registry: ModelRegistry, taxonomy: Taxonomy, *, thorough: bool, say: Say
) -> Iterator[Check]:
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        found = cities.list_cities(connection)
    for city in found:
        yield _guarded(f"{city.code}: models", partial(_models_of, database, city, registry, taxonomy))
        look = partial(_imagery, database, city, thorough=thorough, say=say)
        yield _guarded(f"{city.code}: imagery", look)
        yield _guarded(f"{city.code}: sums", partial(_sums, database, city))


def _models_of(database: Database, city: City, registry: ModelRegistry, taxonomy: Taxonomy) -> Check:
    name = f"{city.code}: models"
    at_hand = set(registry.names())
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        classes = cities.classes_of(connection, city.id)
        wanted = {
            one: models_in_use(_listed(taxonomy, one), surveys.model_choices(connection, city, one))
            for one in classes
        }
    blind = [one for one, models in wanted.items() if not at_hand.intersection(models)]
    if not blind:
        return Check(name=name, ok=True, what=f"one at hand for {', '.join(classes) or 'nothing'}")
    return Check(
        name=name,
        ok=False,
        what=f"no model at hand for {', '.join(blind)}",
        do=f"Put one into HOME/models and choose it: urban-inventory models use NAME --city {city.code}; "
        "or count other classes: city add --class.",
    )


def _listed(taxonomy: Taxonomy, class_name: str) -> tuple[str, ...]:
    known = taxonomy.classes.get(class_name)
    return known.models if known else ()


def _imagery(database: Database, city: City, *, thorough: bool, say: Say) -> Check:
    name = f"{city.code}: imagery"
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        rows = surveys.list_scenes(connection, city)
    held = [row for row in rows if not row.superseded and not row.purged and row.path is not None]
    faults = [(row, fault) for row in held if (fault := _fault(row, thorough=thorough, say=say)) is not None]
    if not faults:
        return Check(name=name, ok=True, what=f"{len(held):,} scenes, their files where they were")
    shown = "; ".join(f"scene {row.public_id}: {row.path} {fault}" for row, fault in faults[:_NAMED])
    more = f"; and {len(faults) - _NAMED:,} more" if len(faults) > _NAMED else ""
    return Check(
        name=name,
        ok=False,
        what=f"{shown}{more} (counts do not depend on it)",
        do=f"urban-inventory scene locate {faults[0][0].public_id} FILE --city {city.code}; a changed picture "
        "is a new scene: ingest it; a lost one: scene purge.",
    )


def _fault(row: SceneRow, *, thorough: bool, say: Say) -> str | None:
    file = Path(row.path or "")
    try:
        changed_at = file.stat().st_mtime
    except OSError:
        return "is not there"
    if not thorough and changed_at <= row.recorded_at.timestamp():
        return None
    say(f"reading {file}")
    try:
        found = open_scene(file, allow_unlocated=True)
    except UrbanInventoryError as error:
        return f"cannot be read ({error.what})"
    return None if found.pixel_hash == row.pixel_hash else "holds other pixels"


def _sums(database: Database, city: City) -> Check:
    name = f"{city.code}: sums"
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        off = integrity.sums_off(connection, city)
    if not off:
        return Check(name=name, ok=True, what="counts are the number of listed assets")
    shown = "; ".join(
        f"{one.area or 'city'}, {one.class_name}: {one.summed:,} summed, {one.listed:,} listed"
        for one in off[:_NAMED]
    )
    return Check(name=name, ok=False, what=shown, do=f"urban-inventory rebuild --city {city.code}")

"""Bringing the database of an installation to the program's schema, or saying what its administrator runs."""

from dataclasses import dataclass
from pathlib import Path

from inventory.errors import RightsMissing
from inventory.store import migrate, roles
from inventory.store.database import open_database


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """Revisions before and after; ``script``: lines for the administrator, where the program lacks the right.

    ``before`` is None for a database without our schema. With a script, nothing was changed.
    """

    before: str | None
    after: str | None
    script: str | None = None


def migrate_database(home: Path, *, database_url: str | None, owner_url: str | None) -> Migrated:
    """Migrates with the owner's address; the embedded database needs none.

    Raises:
        SchemaBehind: the database is newer than the program.
        StoreUnreachable, ClusterUnusable, StoreBusy: no database can be had.
    """
    head = migrate.head_revision()
    if owner_url is not None:
        try:
            return Migrated(before=migrate.upgrade_external(owner_url), after=head)
        except RightsMissing:
            return _for_administrator(owner_url)
    if database_url is not None:
        return _for_administrator(database_url)
    # Opening is migrating here, after a dump.
    with open_database(home):
        return Migrated(before=head, after=head)


def _for_administrator(url: str) -> Migrated:
    found = migrate.revision_at(url)
    if found == migrate.head_revision():
        return Migrated(before=found, after=found)
    prepare = "" if found else f"{roles.administrator_script()}\n"
    return Migrated(before=found, after=found, script=prepare + migrate.upgrade_script(found))

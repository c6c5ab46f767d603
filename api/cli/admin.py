"""Looking after an installation: migrate, settings, doctor."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated

import typer

from api import problems
from api.cli import output
from api.cli.detection import JsonOption
from api.settings import Settings, read_settings, settings_file
from api.settings_table import names_in_file, setting_rows, settings_page
from detection.errors import UrbanInventoryError
from detection.models import ModelRegistry
from detection.taxonomy import shipped_taxonomy
from inventory.doctor import Check, examine
from inventory.migrating import migrate_database


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("migrate")(migrate)
    app.command("settings")(settings_)
    app.command("doctor")(doctor)


def migrate(as_json: JsonOption = False) -> int:
    """Bring the database to this program's schema.

    An external one needs URBAN_INVENTORY_OWNER_DATABASE_URL; without it, or without the right, the lines for
    the database's administrator are printed and nothing is changed (exit code 1).
    """
    settings = read_settings()
    done = migrate_database(
        settings.home, database_url=settings.database_url, owner_url=settings.owner_database_url
    )
    if as_json:
        output.print_json({"before": done.before, "after": done.after, "script": done.script})
    elif done.script is not None:
        output.note(
            f"the schema is at {done.before or 'nothing'}, and this program may not change it; as superuser, "
            "with psql, these lines do (migrate > lines.sql):"
        )
        output.results.print(done.script, markup=False, end="")
    elif done.before == done.after:
        output.note(f"the schema is at {done.after}: nothing to do")
    else:
        output.note(f"the schema was at {done.before or 'nothing'}, and is at {done.after} now")
    return problems.DONE if done.script is None else problems.REFUSED


def settings_(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the page about all settings, docs/settings.md.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the settings that hold, and where each comes from; passwords are masked."""
    if markdown:
        typer.echo(settings_page(), nl=False)
        return
    rows = setting_rows(read_settings())
    if as_json:
        output.print_json(
            {row.name: {"value": row.value, "source": row.source, "variable": row.variable} for row in rows}
        )
        return
    output.print_table(
        "", ("setting", "value", "from"), [(row.name, _plain(row.value), row.source) for row in rows]
    )
    output.note(f"the file: {settings_file()}; what each means: docs/settings.md")


def _plain(value: object) -> str | None:
    # As it is written into the file: without separators of thousands.
    return None if value is None else str(value)


def doctor(
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Read every scene's file, not only those changed since.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Look over the installation: say what is wrong, and how to mend it (exit code 1)."""
    checks = list(_checks(thorough=thorough))
    ok = all(check.ok for check in checks)
    if as_json:
        rows = [{"check": one.name, "ok": one.ok, "what": one.what, "do": one.do} for one in checks]
        output.print_json({"ok": ok, "checks": rows})
    else:
        output.print_table(
            "", ("check", "", "what"), [(one.name, "ok" if one.ok else "WRONG", one.what) for one in checks]
        )
        wrong = [one for one in checks if not one.ok]
        output.results.print()
        for one in wrong:
            output.results.print(f"{one.name}: {one.do or 'see above'}", markup=False)
        if not wrong:
            output.results.print("nothing is wrong")
    return problems.DONE if ok else problems.REFUSED


def _checks(*, thorough: bool) -> Iterator[Check]:
    try:
        settings = read_settings()
    except UrbanInventoryError as error:
        # Without its settings the rest cannot be found.
        yield Check(name="settings", ok=False, what=f"{settings_file()}: {error.what}", do=error.do)
        return
    yield _settings_known()
    yield _map_library()
    yield from examine(
        settings.home,
        database_url=settings.database_url,
        registry=ModelRegistry([settings.models_folder]),
        taxonomy=shipped_taxonomy(),
        thorough=thorough,
        say=output.note,
    )


def _settings_known() -> Check:
    known = set(Settings.model_fields) - {"home"}
    strays = [name for name in names_in_file() if name not in known]
    if not strays:
        file = settings_file()
        return Check(
            name="settings",
            ok=True,
            what=f"{file}" if file.is_file() else "from the environment and defaults",
        )
    return Check(
        name="settings",
        ok=False,
        what=f"{settings_file()} sets what this program does not know: {', '.join(strays)}",
        do=f"See docs/settings.md; it knows: {', '.join(sorted(known))}.",
    )


def _map_library() -> Check:
    library = files("api.web") / "static" / "vendor" / "maplibre" / "maplibre-gl.mjs"
    if not library.is_file():
        return Check(name="map library", ok=False, what="MapLibre is not there", do="Run scripts/setup.")
    return Check(name="map library", ok=True, what="MapLibre, served by this program")

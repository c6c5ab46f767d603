"""Saying something about evidence: surveys, scenes, models in use, rebuild."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli import output
from api.cli.detection import JsonOption, TrustOption, model_registry, models_app, sweep_options
from api.cli.ingest import exit_code, show_outcomes
from api.cli.options import AsOfOption, AuthorOption, CityOption, parse_date
from api.cli.store import open_store
from detection.taxonomy import shipped_taxonomy
from inventory import evidence_changes
from inventory.dates import parse_instant
from inventory.ingest import IngestOptions, rerun
from inventory.model_comparison import CountUnder, ModelComparison, compare_models, draw_comparison
from inventory.store import cities, surveys
from inventory.store.surveys import SceneRow, SurveyRow

survey_app = typer.Typer(
    name="survey", help="Surveys: what a model saw in a scene.", no_args_is_help=True, rich_markup_mode=None
)
scene_app = typer.Typer(
    name="scene", help="Scenes: the imagery behind the surveys.", no_args_is_help=True, rich_markup_mode=None
)
SurveyArgument = Annotated[str, typer.Argument(metavar="SURVEY", help="Id of the survey.")]
SceneArgument = Annotated[str, typer.Argument(metavar="SCENE", help="Id of the scene.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.add_typer(survey_app)
    app.add_typer(scene_app)
    app.command("rebuild")(rebuild)


# --- surveys -----------------------------------------------------------------------------------------


@survey_app.command("list")
def list_surveys(city: CityOption, as_json: JsonOption = False) -> None:
    """List a city's surveys, and the classes for which each is in force."""
    with open_store() as (database, _), database.transaction(read_only=True) as connection:
        rows = surveys.list_surveys(connection, cities.get_city(connection, city))
    _show_surveys(rows, as_json=as_json)


@survey_app.command("withdraw")
def withdraw(
    survey: SurveyArgument, city: CityOption, author: AuthorOption = "local", as_json: JsonOption = False
) -> None:
    """Take a survey out of the evidence; counts of all dates follow."""
    with open_store() as (database, _):
        row = evidence_changes.withdraw_survey(
            database, city, survey, taxonomy=shipped_taxonomy(), author=author
        )
    _show_surveys([row], as_json=as_json)


@survey_app.command("restore")
def restore(
    survey: SurveyArgument, city: CityOption, author: AuthorOption = "local", as_json: JsonOption = False
) -> None:
    """Put a withdrawn survey back."""
    with open_store() as (database, _):
        row = evidence_changes.restore_survey(
            database, city, survey, taxonomy=shipped_taxonomy(), author=author
        )
    _show_surveys([row], as_json=as_json)


def _show_surveys(rows: list[SurveyRow], *, as_json: bool) -> None:
    shown = [
        {
            "survey": row.public_id,
            "scene": row.scene,
            "taken_at": row.taken_at.isoformat(),
            "model": row.model,
            "classes": list(row.classes),
            "in_force": list(row.in_force),
            "windows": row.windows,
            "observations": row.observations,
            "withdrawn": row.withdrawn,
        }
        for row in rows
    ]
    if as_json:
        output.print_json(shown)
        return
    names = ("survey", "scene", "taken", "model", "in force for", "windows", "seen", "")
    output.print_table(
        "",
        names,
        [
            (
                row.public_id,
                row.scene,
                row.taken_at.date().isoformat(),
                row.model,
                ", ".join(row.in_force) or "–",
                row.windows,
                row.observations,
                "withdrawn" if row.withdrawn else "",
            )
            for row in rows
        ],
    )


# --- scenes ------------------------------------------------------------------------------------------


@scene_app.command("list")
def list_scenes(city: CityOption, as_json: JsonOption = False) -> None:
    """List a city's scenes."""
    with open_store() as (database, _), database.transaction(read_only=True) as connection:
        rows = surveys.list_scenes(connection, cities.get_city(connection, city))
    _show_scenes(rows, as_json=as_json)


@scene_app.command("redate")
def redate(
    scene: SceneArgument,
    city: CityOption,
    taken_at: Annotated[str, typer.Option(metavar="DATE", help="When it was really taken.")],
    author: AuthorOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Correct when a scene was taken; counts of all dates follow."""
    with open_store() as (database, _):
        row = evidence_changes.redate_scene(
            database, city, scene, parse_instant(taken_at), taxonomy=shipped_taxonomy(), author=author
        )
    _show_scenes([row], as_json=as_json)


@scene_app.command("locate")
def locate(
    scene: SceneArgument,
    file: Annotated[Path, typer.Argument(help="Where the file lies now.")],
    city: CityOption,
    author: AuthorOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Say where the file of a scene lies now; its pixels must be the same."""
    with open_store() as (database, _):
        row = evidence_changes.locate_scene(database, city, scene, file, author=author)
    _show_scenes([row], as_json=as_json)


@scene_app.command("purge")
def purge(
    scene: SceneArgument,
    city: CityOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    author: AuthorOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Remove a scene's observations and surveys for good; one line of history remains."""
    if not yes:
        typer.confirm(f"Remove scene {scene} of {city} with all that was seen in it?", abort=True, err=True)
    with open_store() as (database, settings):
        row = evidence_changes.purge_scene(
            database, city, scene, taxonomy=shipped_taxonomy(), home=settings.home, author=author
        )
    _show_scenes([row], as_json=as_json)


def _show_scenes(rows: list[SceneRow], *, as_json: bool) -> None:
    if as_json:
        output.print_json(
            [
                {
                    "scene": row.public_id,
                    "path": row.path,
                    "taken_at": row.taken_at.isoformat(),
                    "kind": row.scene_kind.value,
                    "ground_resolution_m": row.ground_resolution_m,
                    "source": row.source,
                    "campaign": row.campaign,
                    "superseded": row.superseded,
                    "purged": row.purged,
                    "found": row.path is not None and Path(row.path).is_file(),
                }
                for row in rows
            ]
        )
        return
    output.print_table(
        "",
        ("scene", "taken", "source", "campaign", "m/px", "file", ""),
        [
            (
                row.public_id,
                row.taken_at.date().isoformat(),
                row.source,
                row.campaign,
                row.ground_resolution_m,
                row.path or "–",
                _state(row),
            )
            for row in rows
        ],
    )


def _state(row: SceneRow) -> str:
    if row.purged:
        return "purged"
    if row.superseded:
        return "superseded"
    return "" if row.path and Path(row.path).is_file() else "file is gone: scene locate"


# --- models in use, rebuild ----------------------------------------------------------------------------


@models_app.command("use")
def use_model(
    name: Annotated[str, typer.Argument(help="The model.")],
    city: CityOption,
    again: Annotated[bool, typer.Option("--rerun", help="Run it on the scenes it has not seen.")] = False,
    author: AuthorOption = "local",
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> int:
    """Use a model for the classes it sees; choosing the old one again gives the counts of before."""
    registry = model_registry()
    with open_store() as (database, settings):
        chosen = evidence_changes.choose_model(
            database, city, registry.get(name), taxonomy=shipped_taxonomy(), author=author
        )
        outcomes = []
        if again and chosen.scenes_without:
            outcomes = rerun(
                database,
                city,
                chosen.scenes_without,
                registry=registry,
                taxonomy=shipped_taxonomy(),
                options=IngestOptions(
                    model=name, author=author, sweep=sweep_options(trust_model=trust_model)
                ),
                checkpoints=settings.home / "cache" / "blocks",
            )
    if as_json:
        output.print_json(
            {
                "model": chosen.model,
                "classes": list(chosen.classes),
                "scenes_without": [row.public_id for row in chosen.scenes_without],
                "rerun": [outcome.as_json() for outcome in outcomes],
            }
        )
        return exit_code(outcomes)
    output.results.print(
        f"{city} now uses {chosen.model} for {', '.join(chosen.classes)}; it has not run on "
        f"{len(chosen.scenes_without)} scenes"
        + ("" if again else ", which keep their earlier survey (--rerun)"),
        markup=False,
    )
    if outcomes:
        show_outcomes(outcomes, as_json=False)
    return exit_code(outcomes)


@models_app.command("compare")
def compare(
    old: Annotated[str, typer.Argument(help="The model in use, or another one.")],
    new: Annotated[str, typer.Argument(help="The model to compare with it.")],
    city: CityOption,
    level: Annotated[
        str | None, typer.Option(help="Count the areas of this level; default the top one.")
    ] = None,
    as_of: AsOfOption = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw the ground where they differ most.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--rerun/--no-rerun", help="Run the new one on scenes it has not seen, in shadow.")
    ] = True,
    author: AuthorOption = "local",
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> int:
    """Say how the counts would change with another model, and where it sees other things; nothing is changed."""
    registry = model_registry()
    with open_store() as (database, settings):
        comparison = compare_models(
            database,
            city,
            registry.get(old),
            registry.get(new),
            registry=registry,
            taxonomy=shipped_taxonomy(),
            level=level,
            as_of=parse_date(as_of),
            run=again,
            options=sweep_options(trust_model=trust_model),
            author=author,
            checkpoints=settings.home / "cache" / "blocks",
        )
    if picture is not None and comparison.differences:
        drawn = draw_comparison(comparison, picture)
        output.note(f"{drawn:,} place{'s' if drawn != 1 else ''} drawn to {picture}")
    elif picture is not None:
        output.warn(f"no picture: {old} and {new} saw the same on the scenes that both have seen")
    if as_json:
        drawn_to = str(picture) if picture is not None and comparison.differences else None
        output.print_json({**comparison.as_json(), "picture": drawn_to})
    else:
        _show_comparison(comparison)
    return exit_code(list(comparison.shadow))


def _show_comparison(comparison: ModelComparison) -> None:
    refused = [outcome for outcome in comparison.shadow if outcome.error is not None]
    for outcome in refused:
        if outcome.error is not None:
            output.print_error(outcome.error, as_json=False)
    if comparison.shadow:
        ran = len(comparison.shadow) - len(refused)
        output.note(f"{comparison.new} has run in shadow on {ran:,} scene{'s' if ran != 1 else ''}")
    output.print_table(
        f"{comparison.city.code} as of {comparison.as_of.isoformat()}",
        ("area", "class", f"under {comparison.old}", f"under {comparison.new}", "change"),
        [
            (
                row.area if row.name in (None, row.area) else f"{row.area} {row.name}",
                row.class_name,
                row.old,
                row.new,
                _change(row),
            )
            for row in comparison.counts
        ],
    )
    told = f"both have seen {comparison.scenes:,} scene{'s' if comparison.scenes != 1 else ''}"
    if comparison.left:
        left = f"{comparison.new} has not seen {len(comparison.left):,}, which keep their earlier survey"
        told = f"{told}; {left}"
    output.results.print(told, markup=False)
    output.results.print(
        f"nothing is changed; to use it: urban-inventory models use {comparison.new} "
        f"--city {comparison.city.code}",
        markup=False,
    )


def _change(row: CountUnder) -> str:
    if row.change is None:
        return "–"
    if row.change == 0:
        return "0"
    return f"{row.change:+,}" + (f" ({row.change / row.old:+.1%})" if row.old else "")


def rebuild(city: CityOption, author: AuthorOption = "local", as_json: JsonOption = False) -> None:
    """Fold all evidence of a city from nothing; the outcome is the same as before."""
    with open_store() as (database, _):
        evidence_changes.rebuild(database, city, taxonomy=shipped_taxonomy(), author=author)
    if as_json:
        output.print_json({"city": city, "rebuilt": True})
    else:
        output.results.print(f"{city} rebuilt from its evidence", markup=False)

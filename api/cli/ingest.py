"""The main job from the command line: ingest."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from api import problems
from api.cli import output
from api.cli.detection import (
    ClusterOption,
    CrsOption,
    JsonOption,
    ProviderOption,
    TrustOption,
    WorkersOption,
    executor_for,
    model_registry,
    sweep_options,
    sweep_progress,
)
from api.cli.options import AuthorOption, CityOption
from api.cli.store import open_store
from detection.taxonomy import shipped_taxonomy
from inventory.dates import parse_instant
from inventory.errors import StoreError
from inventory.ingest import Ingested, IngestOptions, Status, ingest


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("ingest")(ingest_files)


def ingest_files(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Imagery; files of one date are one mosaic.")
    ],
    city: CityOption,
    taken_at: Annotated[
        str | None, typer.Option(metavar="DATE", help="When it was taken, where the file does not say.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="Where it comes from: a programme, a team's drone.")
    ] = "unnamed",
    campaign: Annotated[
        str | None, typer.Option(help="One look at the ground; by default all of a source on one date.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Instead of the models in force for the city.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the imagery.")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to name where it is shown.")] = None,
    datum: Annotated[str | None, typer.Option(help="gcj02, if the position is in that datum.")] = None,
    crs: CrsOption = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Keep a copy of the files in the data folder.")
    ] = False,
    author: AuthorOption = "local",
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    provider: ProviderOption = None,
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> int:
    """Count what is to be seen in imagery: detect, match with what is known, store."""
    with ExitStack() as stack:
        database, settings = stack.enter_context(open_store())
        executor = stack.enter_context(executor_for(cluster))
        bar = stack.enter_context(output.progress_bar("ingesting", unit="windows"))
        outcomes = ingest(
            database,
            city,
            files,
            registry=model_registry(),
            taxonomy=shipped_taxonomy(),
            options=IngestOptions(
                taken_at=parse_instant(taken_at) if taken_at else None,
                source=source,
                campaign=campaign,
                model=model,
                licence=licence,
                attribution=attribution,
                datum=datum,
                crs=crs,
                copy_to=settings.home / "imagery" if copy else None,
                author=author,
                sweep=sweep_options(workers=workers, trust_model=trust_model, provider=provider),
            ),
            executor=executor,
            checkpoints=settings.home / "cache" / "blocks",
            progress=sweep_progress(bar),
        )
    show_outcomes(outcomes, as_json=as_json)
    return exit_code(outcomes)


def exit_code(outcomes: list[Ingested]) -> int:
    """Refused files make the whole command refused; a store that failed says so by its own code."""
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    store = [error for error in errors if isinstance(error, StoreError)]
    if store:
        return problems.outcome_of(store[0]).exit_code
    return problems.REFUSED if errors else problems.DONE


def show_outcomes(outcomes: list[Ingested], *, as_json: bool) -> None:
    """One row a file and model; refusals first, each as its one message."""
    if as_json:
        output.print_json([outcome.as_json() for outcome in outcomes])
        return
    for outcome in outcomes:
        if outcome.error is not None:
            output.print_error(outcome.error, as_json=False)
    rows = [
        (
            Path(outcome.file).name,
            outcome.status.value.replace("_", " "),
            outcome.survey,
            outcome.windows,
            outcome.observations,
            outcome.new,
            outcome.matched,
            outcome.missed,
            outcome.seconds,
        )
        for outcome in outcomes
        if outcome.status is not Status.REFUSED
    ]
    if rows:
        names = ("file", "status", "survey", "windows", "seen", "new", "matched", "missed", "s")
        output.print_table("", names, rows)
    for outcome in outcomes:
        if outcome.shift_unknown:
            output.note(
                f"{Path(outcome.file).name}: whether it lies shifted cannot be told; it was taken as it lies"
            )
        if outcome.shift_m is not None and any(outcome.shift_m):
            east, north = outcome.shift_m
            output.note(
                f"{Path(outcome.file).name}: lay {east:+.2f} m east, {north:+.2f} m north of what was known; removed"
            )
        if outcome.status is Status.NOT_IN_FORCE:
            output.warn(
                f"survey {outcome.survey} by {outcome.model} is stored but is no evidence: the city uses another "
                "model (“urban-inventory models use”)"
            )

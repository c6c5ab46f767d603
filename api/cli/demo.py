"""``demo``: a counted city from nothing, with the use cases that serve real ones."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from api.cli import output
from api.cli.detection import JsonOption, WorkersOption, model_registry, sweep_options, sweep_progress
from api.cli.serve import listening_socket, serve_on, serving_settings
from detection.taxonomy import shipped_taxonomy
from inventory.demo import DemoResult, run_demo
from inventory.demo_city_scene import CitySceneResult, run_city_scene
from inventory.demo_scenes import read_demo
from inventory.store.database import open_database


def register(app: typer.Typer) -> None:
    """Adds ``demo`` to the program."""
    app.command("demo")(demo)


def demo(
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the result afterwards.")] = True,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to serve on; 8000 without it.")
    ] = None,
    city_scene: Annotated[
        bool, typer.Option("--city-scene", help="Also count cars and trees of a dense city (0.6 MB more).")
    ] = False,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the trees in real airborne imagery, say how good the count is, and serve the result.

    The scenes come from a wheel on the package index (20 MB, once), or from the mirror of data sets; that of
    --city-scene from its public repository. Nothing else is contacted. Places and dates are nominal. --json
    prints one object and does not serve.
    """
    settings = serving_settings(None, port, None)
    serve = serve and not as_json
    if serve:
        # Said now, not after the work.
        listening_socket(settings.host, settings.port).close()
    with (
        open_database(
            settings.home,
            database_url=settings.database_url,
            pool_size=settings.pool_size,
            keep_running=serve,
        ) as database,
    ):
        told = read_demo()
        with output.progress_bar("counting", unit="windows") as bar:
            given: dict[str, Any] = {
                "home": settings.home,
                "mirror": settings.data_mirror,
                "registry": model_registry(),
                "taxonomy": shipped_taxonomy(),
                "now": datetime.now(UTC),
                "say": output.note,
                "progress": sweep_progress(bar),
                "options": sweep_options(workers=workers),
            }
            result = run_demo(database, told, **given)
            dense = run_city_scene(database, told.city_scene, **given) if city_scene else None
        if as_json:
            output.print_json(_as_json(result, dense))
            return
        _print(result)
        if dense is not None:
            _print_city_scene(dense)
        if serve:
            output.note("serving until Ctrl-C; the cities' pages with their map:")
            with listening_socket(settings.host, settings.port) as listener:
                serve_on(listener, settings, database)


def _as_json(result: DemoResult, dense: CitySceneResult | None) -> dict[str, Any]:
    rows = [one.row for one in result.counts] + list(dense.rows if dense else ())
    return {
        "counts": [
            {
                "area": row.area,
                "class": row.class_name,
                "count": row.count,
                "coverage": row.coverage,
            }
            for row in rows
        ],
        "accuracy": asdict(result.accuracy),
        "seconds": round(result.seconds, 2),
    }


def _print(result: DemoResult) -> None:
    output.print_table(
        "",
        ("area", "name", "level", "trees", "90 % interval", "surveyed"),
        [
            (
                one.row.area,
                one.row.name,
                one.level or "city",
                one.row.count,
                _interval(one.row.low, one.row.high),
                "no" if one.row.coverage is None else f"{one.row.coverage:.0%}",
            )
            for one in result.counts
        ],
    )
    rows = [(one.scene, *asdict(one.accuracy).values()) for one in result.scenes]
    pooled = " + ".join(one.scene for one in result.scenes if one.pooled)
    rows.append((pooled, *asdict(result.accuracy).values()))
    output.results.print()
    output.print_table(
        "against the labels of the scenes, one-to-one at IoU 0.4",
        ("scene", "precision", "recall", "labelled", "counted", "count error"),
        rows,
    )
    output.results.print()
    for one in result.scenes:
        output.results.print(f"picture: {one.picture}", markup=False)
    output.note(f"counted in {result.seconds:.0f} s")


def _print_city_scene(result: CitySceneResult) -> None:
    output.results.print()
    output.print_table(
        "",
        ("area", "name", "class", "count", "90 % interval", "surveyed"),
        [
            (
                row.area,
                row.name,
                row.class_name,
                row.count,
                _interval(row.low, row.high),
                "no" if row.coverage is None else f"{row.coverage:.0%}",
            )
            for row in result.rows
        ],
    )


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:,.0f} – {high:,.0f}"

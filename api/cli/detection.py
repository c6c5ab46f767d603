"""Commands that look at imagery: inspect, detect, models list. None of them needs a database."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from api.cli import output
from api.problems import DONE, REFUSED, problem
from api.settings import read_settings
from detection.bare_weights import model_from_weights
from detection.cluster import cluster_executor
from detection.errors import CallerError
from detection.geojson import features
from detection.imagery.inspect import Finding, Inspection, Severity, inspect_imagery
from detection.imagery.scene import Scene
from detection.models import Model, ModelRegistry
from detection.sweep import Progress, SweepOptions, SweepResult, sweep
from detection.taxonomy import shipped_taxonomy

models_app = typer.Typer(
    name="models", help="Models: what they see and how well.", no_args_is_help=True, rich_markup_mode=None
)

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="GeoTIFF; or JPEG, PNG with a world file.")
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Name of a model, or path of a card.toml, its folder, or weights."),
]
CrsOption = Annotated[str | None, typer.Option("--crs", help="For a world file without CRS: EPSG:…")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="ADDRESS", help="Dask scheduler, as tcp://host:8786.")
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Windows computed at once.")]
ResolutionOption = Annotated[
    float | None,
    typer.Option("--model-resolution", help="Metres a pixel that bare weights (.onnx, .pt) want."),
]
TrustOption = Annotated[bool, typer.Option("--trust-model", help="Load a .pt, which runs its author's code.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(inspect)
    app.command()(detect)
    app.add_typer(models_app)


def model_registry() -> ModelRegistry:
    """Shipped models and those in the installation's folder."""
    return ModelRegistry([read_settings().models_folder])


def default_model(registry: ModelRegistry) -> Model:
    """The model that the taxonomy lists for trees: the one this program ships."""
    return registry.get(shipped_taxonomy().get("tree").models[0])


def _chosen_model(spoken: str | None, ground_resolution_m: float | None, *, is_trusted: bool) -> Model:
    registry = model_registry()
    if spoken is None:
        return default_model(registry)
    path = Path(spoken)
    if path.suffix.lower() in {".onnx", ".pt"} and path.is_file():
        return model_from_weights(path, ground_resolution_m, is_trusted=is_trusted)
    return registry.find(spoken)


# --- inspect ----------------------------------------------------------------------------------------


def inspect(
    file: FileArgument,
    model: ModelOption = None,
    crs: CrsOption = None,
    taken_at: Annotated[datetime | None, typer.Option(help="When it was taken.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Look at an image file before using it: what is right, what is mended, what you must mend."""
    registry = model_registry()
    chosen = registry.find(model) if model else default_model(registry) if registry.names() else None
    report = inspect_imagery(file, card=chosen.card if chosen else None, crs=crs, taken_at=taken_at)
    if as_json:
        output.print_json(report_of(report))
    else:
        rows = [(f.subject, _WORDS[f.severity], f.what, f.do) for f in report.findings]
        output.print_table(str(file), ("subject", "verdict", "what", "do"), rows)
    return DONE if report.is_usable else REFUSED


_WORDS = {
    Severity.OK: "ok",
    Severity.MENDED: "fixed automatically",
    Severity.BLOCKING: "must be fixed by hand",
}


def report_of(report: Inspection) -> dict[str, Any]:
    """A pre-flight report as JSON."""
    return {
        "file": str(report.path),
        "usable": report.is_usable,
        "scene": _facts(report.scene) if report.scene else None,
        "findings": [_finding(finding) for finding in report.findings],
    }


def _facts(scene: Scene) -> dict[str, Any]:
    lon, lat = scene.centre_lon_lat()
    return {
        "crs": ":".join(scene.located_crs.to_authority(min_confidence=90) or ("", scene.located_crs.name)),
        "centre": [round(lon, 7), round(lat, 7)],
        "bounds": [round(side, 7) for side in scene.surveyed().bounds],
        "size_px": scene.size_px,
        "ground_resolution_m": round(scene.ground_resolution_m, 6),
        "bands": scene.bands.rgb,
        "dtype": scene.dtype,
        "surveyed_share": round(scene.validity.share, 4),
        "taken_at": scene.taken_at.isoformat() if scene.taken_at else None,
        "hash": scene.content_hash,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "severity": finding.severity.value,
        "what": finding.what,
        "do": finding.do,
        "code": problem(finding.error)["code"] if finding.error else None,
    }


# --- detect -----------------------------------------------------------------------------------------


def detect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Several files are one mosaic.")],
    out: Annotated[Path | None, typer.Option("--output", "-o", help="GeoJSON to write; else stdout.")] = None,
    model: ModelOption = None,
    crs: CrsOption = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score, instead of the model card's.")
    ] = None,
    points: Annotated[bool, typer.Option("--points", help="Centres instead of boxes.")] = False,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    model_resolution: ResolutionOption = None,
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Detect objects in imagery and write them as GeoJSON (longitude, latitude). No database is needed."""
    chosen = _chosen_model(model, model_resolution, is_trusted=trust_model)
    scenes = [
        inspect_imagery(file, card=chosen.card, crs=crs).usable_scene(without_date=True) for file in files
    ]
    options = SweepOptions(threshold_override=threshold, workers=workers, is_trusted=trust_model)
    started = time.monotonic()
    with executor_for(cluster) as executor, output.progress_bar("detecting", unit="windows") as bar:
        found = sweep(scenes, chosen, options, executor=executor, progress=sweep_progress(bar))
    seconds = time.monotonic() - started
    collection = feature_collection(
        feature
        for result, scene in zip(found, scenes, strict=True)
        for feature in features(result.observations, scene, as_points=points)
    )
    _deliver(collection, out, summary_of(found, chosen, seconds, out), as_json=as_json)


@contextmanager
def executor_for(cluster: str | None) -> Iterator[Executor | None]:
    """The executor of a sweep: a cluster's, or None for threads of this process."""
    if cluster is None:
        yield None
        return
    with cluster_executor(cluster) as executor:
        yield executor


def sweep_progress(bar: output.Bar) -> Callable[[Progress], None]:
    """Shows a sweep on a progress bar, with windows and ground a second."""
    started = time.monotonic()

    def show(progress: Progress) -> None:
        seconds = max(time.monotonic() - started, 1e-6)
        windows, area_m2 = progress.windows_done / seconds, progress.area_m2 / seconds
        rate = f"{windows:,.1f} windows/s, {area_m2 * 3600 / 1e6:,.1f} km²/h"
        bar(progress.windows_done, progress.windows_total, rate)

    return show


def summary_of(
    found: Iterable[SweepResult], model: Model, seconds: float, out: Path | None
) -> dict[str, Any]:
    """What a detection yielded, in numbers."""
    results = list(found)
    return {
        "model": model.card.name,
        "objects": sum(len(result.observations) for result in results),
        "windows": sum(result.windows for result in results),
        "seconds": round(seconds, 3),
        "output": str(out) if out else None,
    }


def feature_collection(found: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """A FeatureCollection in pieces, one feature a line."""
    yield b'{"type":"FeatureCollection","features":[\n'
    for number, feature in enumerate(found):
        yield (b",\n" if number else b"") + orjson.dumps(feature)
    yield b"\n]}\n"


def _deliver(
    collection: Iterator[bytes], out: Path | None, summary: dict[str, Any], *, as_json: bool
) -> None:
    if out is None and not as_json:
        for piece in collection:
            typer.echo(piece, nl=False)
    if out is not None:
        _write(collection, out)
    if as_json:
        output.print_json(summary)
    else:
        output.note(
            f"{summary['objects']:,} objects in {summary['windows']:,} windows, {summary['seconds']:.1f} s"
        )


def _write(collection: Iterator[bytes], out: Path) -> None:
    unfinished = out.with_name(f".{out.name}.part")
    try:
        with unfinished.open("wb") as file:
            file.writelines(collection)
        unfinished.replace(out)
    except OSError as error:
        raise CallerError(f"cannot write: {error.strerror}", where=str(out)) from error


# --- models -----------------------------------------------------------------------------------------


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the models on this machine: classes, ground resolution, and how they were measured."""
    registry = model_registry()
    found = [registry.get(name).card for name in registry.names()]
    rows = [
        {
            "name": card.name,
            "version": card.version,
            "classes": list(card.output.classes),
            "ground_resolution_m": card.input.ground_resolution_m,
            "range_m": list(card.input.range_m),
            "threshold": card.threshold,
            "validated": card.is_validated,
            "licence": card.licence,
            "description": card.description,
        }
        for card in found
    ]
    if as_json:
        output.print_json(rows)
        return
    table = [
        (
            row["name"],
            row["version"],
            ", ".join(card.output.classes),
            f"{card.input.ground_resolution_m:g} m ({card.input.range_m[0]:g} to {card.input.range_m[1]:g})",
            "yes" if row["validated"] else "no",
            row["licence"],
        )
        for row, card in zip(rows, found, strict=True)
    ]
    output.print_table("", ("name", "version", "classes", "ground resolution", "validated", "licence"), table)

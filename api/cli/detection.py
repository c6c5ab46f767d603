"""Commands that look at imagery: inspect, detect, models list. None of them needs a database."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from api.cli import output
from api.problems import DONE, REFUSED, problem
from api.settings import read_settings
from detection.adding import add_model
from detection.bare_weights import model_from_weights
from detection.cluster import cluster_executor
from detection.errors import CallerError, UrbanInventoryError
from detection.geojson import features
from detection.imagery.inspect import Finding, Inspection, Severity, inspect_imagery
from detection.imagery.scene import Scene
from detection.models import Model, ModelCard, ModelRegistry
from detection.providers import AcceptedProviders, Accuracy, Provider, accuracy_of
from detection.sweep import Observations, Progress, SweepOptions, SweepResult, sweep
from detection.taxonomy import shipped_taxonomy
from detection.tuning import SpeedMemory

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
ProviderOption = Annotated[
    Provider | None,
    typer.Option(help="What computes the network, after “models check”. [default: the setting, cpu]"),
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


def sweep_options(
    *,
    workers: int | None = None,
    trust_model: bool = False,
    provider: Provider | None = None,
    threshold: float | None = None,
) -> SweepOptions:
    """How to sweep, as told on the command line and in the settings."""
    settings = read_settings()
    return SweepOptions(
        threshold_override=threshold,
        workers=workers,
        is_trusted=trust_model,
        provider=provider or settings.provider,
        accepted=AcceptedProviders(settings.accepted_providers),
        speed=SpeedMemory(settings.home / "cache" / "speed.json"),
    )


def parse_mapping(pairs: list[str] | None) -> dict[str, str]:
    """``label=class`` as given on the command line.

    Raises:
        CallerError: not of that form.
    """
    mapping: dict[str, str] = {}
    for pair in pairs or ():
        label, equals, class_name = (part.strip() for part in pair.partition("="))
        if not (label and equals and class_name) or "=" in class_name:
            raise CallerError(f"“{pair}” is no mapping", do="Write it as label=class.")
        if mapping.get(label, class_name) != class_name:
            raise CallerError(f"“{label}” is mapped to two classes", do="Map it once.")
        mapping[label] = class_name
    return mapping


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
    provider: ProviderOption = None,
    model_resolution: ResolutionOption = None,
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Detect objects in imagery and write them as GeoJSON (longitude, latitude). No database is needed."""
    chosen = _chosen_model(model, model_resolution, is_trusted=trust_model)
    scenes = [
        inspect_imagery(file, card=chosen.card, crs=crs).usable_scene(without_date=True) for file in files
    ]
    options = sweep_options(workers=workers, trust_model=trust_model, provider=provider, threshold=threshold)
    started = time.monotonic()
    with executor_for(cluster) as executor, output.progress_bar("detecting", unit="windows") as bar:
        found = sweep(scenes, chosen, options, executor=executor, progress=sweep_progress(bar))
    seconds = time.monotonic() - started
    collection = feature_collection(
        feature
        for result, scene in zip(found, scenes, strict=True)
        for feature in features(result.observations, scene, shipped_taxonomy(), as_points=points)
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
        "implausible": sum(_implausible(result.observations) for result in results),
        "windows": sum(result.windows for result in results),
        "seconds": round(seconds, 3),
        "output": str(out) if out else None,
    }


def _implausible(seen: Observations) -> int:
    """How many have a size that their class cannot have."""
    taxonomy = shipped_taxonomy()
    names = np.array(seen.classes, object)[seen.class_index]
    known = np.isin(names.astype(str), list(taxonomy.classes))
    return int((known & ~taxonomy.plausible(names, seen.size_m.max(axis=1, initial=0))).sum())


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
        odd = (
            f", {summary['implausible']:,} of a size that their class cannot have,"
            if summary["implausible"]
            else ""
        )
        output.note(
            f"{summary['objects']:,} objects{odd} in {summary['windows']:,} windows, {summary['seconds']:.1f} s"
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


@models_app.command("add")
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx|FILE.pt", help="The network.")],
    card: Annotated[
        Path | None,
        typer.Option(
            help="Its card.toml; without, what the file's own metadata say (GeoDeep, Deepness, ultralytics)."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Its name here. [default: the card's, else the file's]")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="A class of the network as one of the taxonomy: Tree=tree."),
    ] = None,
    model_resolution: ResolutionOption = None,
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep a model of your own; its counts have no interval until it is evaluated (evaluate --write-card)."""
    settings = read_settings()
    model = add_model(
        file,
        settings.models_folder,
        model_registry(),
        card_file=card,
        name=name,
        ground_resolution_m=model_resolution,
        mapping=parse_mapping(mapping),
        is_trusted=trust_model,
    )
    known = set(shipped_taxonomy().classes)
    strangers = [one for one in model.card.output.classes if one not in known]
    if as_json:
        output.print_json(
            {
                "name": model.card.name,
                "card": str(model.card_path),
                "classes": list(model.card.output.classes),
                "ground_resolution_m": model.card.input.ground_resolution_m,
                "validated": model.card.is_validated,
            }
        )
        return
    output.results.print(
        f"{model.card.name}: {', '.join(model.card.output.classes)} at {model.card.input.ground_resolution_m:g} m, "
        f"{_validation(model.card)}; {model.card_path}",
        markup=False,
    )
    if strangers:
        output.note(
            f"The taxonomy knows no {', '.join(strangers)}: they are detected, and counted in no city. "
            "--map says which class they are."
        )


@models_app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A model.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Imagery with 50 objects or more.")],
    provider: Annotated[Provider, typer.Option(help="openvino, openvino-bf16 or cuda.")],
    crs: CrsOption = None,
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> int:
    """Test whether a model sees with another provider what it sees with the CPU; then it may be used here."""
    model = model_registry().find(name)
    scenes = [
        inspect_imagery(file, card=model.card, crs=crs).usable_scene(without_date=True) for file in files
    ]
    with output.progress_bar("comparing", unit="windows") as bar:
        seen = [
            sweep(
                scenes,
                model,
                SweepOptions(is_trusted=trust_model, provider=one),
                progress=sweep_progress(bar),
            )
            for one in (Provider.CPU, provider)
        ]
    accuracy = accuracy_of(
        *(
            [(result.observations.box_px, result.observations.class_index) for result in results]
            for results in seen
        )
    )
    if accuracy.passes:
        AcceptedProviders(read_settings().accepted_providers).accept(model, provider, accuracy)
    if as_json:
        output.print_json(
            {"model": model.card.name, "provider": provider, **asdict(accuracy), "passes": accuracy.passes}
        )
    else:
        output.results.print(_verdict(model, provider, accuracy), markup=False)
    return DONE if accuracy.passes else REFUSED


def _verdict(model: Model, provider: Provider, accuracy: Accuracy) -> str:
    if not accuracy.is_enough:
        return f"cannot tell: only {accuracy.objects} objects were found; give imagery with 50 or more"
    said = (
        f"{accuracy.agreed:.1%} of the detections are the same, count {accuracy.count_change:+.2%} "
        f"of {accuracy.objects:,}"
    )
    verdict = "passes, and may be used on this machine" if accuracy.passes else "does not pass"
    return f"{model.card.name} with {provider} {verdict}: {said}"


def _validation(card: ModelCard) -> str:
    """Of which classes counts have an interval (R13)."""
    if card.is_validated:
        return "validated"
    if card.evidence:
        return f"not validated: {', '.join(card.unvalidated)}"
    return "not validated"


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> int:
    """List the models on this machine: classes, ground resolution, and how they were measured."""
    registry = model_registry()
    found: list[ModelCard] = []
    broken: list[UrbanInventoryError] = []
    for name in registry.names():
        # One broken card must not hide the others.
        try:
            found.append(registry.get(name).card)
        except UrbanInventoryError as error:
            broken.append(error)
    for fault in broken:
        output.print_error(fault, as_json=False)
    rows = [
        {
            "name": card.name,
            "version": card.version,
            "classes": list(card.output.classes),
            "ground_resolution_m": card.input.ground_resolution_m,
            "range_m": list(card.input.range_m),
            "threshold": card.threshold,
            "views": card.input.views,
            "validated": card.is_validated,
            "unvalidated": list(card.unvalidated),
            "licence": card.licence,
            "description": card.description,
        }
        for card in found
    ]
    if as_json:
        output.print_json(rows)
        return REFUSED if broken else DONE
    table = [
        (
            row["name"],
            row["version"],
            ", ".join(card.output.classes),
            f"{card.input.ground_resolution_m:g} m ({card.input.range_m[0]:g} to {card.input.range_m[1]:g})",
            _validation(card),
            row["licence"],
        )
        for row, card in zip(rows, found, strict=True)
    ]
    output.print_table("", ("name", "version", "classes", "ground resolution", "validated", "licence"), table)
    return REFUSED if broken else DONE

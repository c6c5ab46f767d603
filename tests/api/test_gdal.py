"""GDAL itself as a client: what ogr2ogr, geopandas and pyogrio do with a city's address.

In a process of its own: GDAL keeps Python's lock while it waits, and the service answers from a thread here.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyogrio
import pytest

from tests.api.conftest import MANY, Service

pytestmark = pytest.mark.skipif(
    "OAPIF" not in pyogrio.list_drivers(), reason="this build of GDAL has no OAPIF driver"
)

_READER = """
import json, sys, pyogrio
city, options = sys.argv[1], json.loads(sys.argv[2])
if "bbox" in options:
    options["bbox"] = tuple(options["bbox"])
if "layer" not in options:
    print(json.dumps([name for name, _ in pyogrio.list_layers(city)]))
else:
    frame = pyogrio.read_dataframe(city, **options)
    print(json.dumps({
        "ids": list(frame["id"]), "classes": sorted(set(frame["class"])) if "class" in frame else [],
        "bounds": list(frame.total_bounds), "crs": str(frame.crs), "columns": list(frame.columns),
    }))
"""


def read(service: Service, city: str, **options: Any) -> Any:
    answer = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            _READER,
            f"OAPIF:{service.url}/cities/{city}",
            json.dumps(options),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(answer.stdout)


def test_gdal_lists_the_collections_of_a_city(service: Service) -> None:
    assert read(service, "town") == ["assets", "areas", "surveys", "observations", "decisions", "counts"]


def test_gdal_reads_every_page_of_a_collection(service: Service) -> None:
    found = read(service, "many", layer="assets")

    assert len(found["ids"]) == len(set(found["ids"])) == MANY
    assert "CRS84" in found["crs"]
    assert found["classes"] == ["tree"]
    assert [round(number, 3) for number in found["bounds"]] == [100.0, 22.0, 100.099, 22.059]


def test_gdal_pushes_a_box_and_an_equality_down(service: Service) -> None:
    boxed = read(service, "town", layer="assets", bbox=[100.0, 22.0, 100.05, 22.05])
    named = read(service, "town", layer="observations", where="class='car'")

    assert sorted(boxed["ids"]) == ["a00001", "a00002"]
    assert (len(named["ids"]), named["classes"]) == (2, ["car"])


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("width_m > 1 AND class ILIKE 'TR%'", ["a00001", "a00002", "a00004", "a00006"]),
        ("verified = 1", ["a00004"]),
        ("first_seen > '2025/12/31 00:00:00'", ["a00004"]),
        ("NOT (first_missed IS NULL)", []),
    ],
)
def test_gdal_sends_its_filters_along(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, ids: list[str]
) -> None:
    told = tmp_path / "told.txt"
    monkeypatch.setenv("CPL_DEBUG", "ON")
    monkeypatch.setenv("CPL_LOG", str(told))

    assert sorted(read(service, "town", layer="assets", where=where)["ids"]) == ids
    assert "filter-lang=cql-text" in told.read_text()
    assert "client side" not in told.read_text()


@pytest.mark.parametrize("layer", ["areas", "surveys"])
def test_gdal_reads_the_other_collections(service: Service, layer: str) -> None:
    found = read(service, "town", layer=layer)

    assert len(found["ids"]) == service.get(f"/cities/town/collections/{layer}").json()["itemCount"]


def download(service: Service, city: str, form: str, suffix: str, folder: Path) -> Path:
    file = folder / f"{city}.{suffix}"
    answer = service.get(f"/cities/{city}/collections/assets/download?f={form}")
    assert answer.status_code == 200
    file.write_bytes(answer.content)
    return file


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("flatgeobuf", "fgb"),
        ("gpkg", "gpkg"),
        ("geojson", "geojson"),
        ("geojsonseq", "geojsonl"),
        ("csv", "csv"),
    ],
)
def test_gdal_reads_downloads_with_the_ids_and_places_of_the_items(
    service: Service, tmp_path: Path, form: str, suffix: str
) -> None:
    file = download(service, "many", form, suffix, tmp_path)
    options = {"X_POSSIBLE_NAMES": "longitude", "Y_POSSIBLE_NAMES": "latitude"} if form == "csv" else {}
    found = pyogrio.read_dataframe(file, **options)
    items = read(service, "many", layer="assets")

    assert len(found) == MANY
    assert sorted(found["id"]) == sorted(items["ids"])
    assert list(found.total_bounds) == pytest.approx(items["bounds"], abs=1e-7)


def test_a_flatgeobuf_has_an_index_that_gdal_asks(service: Service, tmp_path: Path) -> None:
    file = download(service, "many", "flatgeobuf", "fgb", tmp_path)
    told = pyogrio.read_info(file)
    boxed = pyogrio.read_dataframe(file, bbox=(100.0, 22.0, 100.0095, 22.0095))

    assert told["features"] == MANY
    assert told["capabilities"]["fast_spatial_filter"]
    assert len(boxed) == 100


def test_gdal_reads_a_page_as_flatgeobuf_from_its_address(service: Service) -> None:
    script = (
        "import sys, pyogrio\n"
        "print(len(pyogrio.read_dataframe('/vsicurl_streaming/' + sys.argv[1], driver='FlatGeobuf')))"
    )
    address = f"{service.url}/cities/few/collections/assets/items?f=flatgeobuf&limit=30"
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, address],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert answer.stdout.strip() == "30", answer.stderr

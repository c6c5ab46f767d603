"""The formats of features: every one of them says what GeoJSON says, page by page and as a whole."""

import csv
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas
import httpx
import pytest

from inventory.feature_tables import LAYERS
from inventory.store.features import Collection
from tests.api.conftest import FEW, HOSTILE, MANY, Service

COLLECTIONS = ("assets", "areas", "surveys", "observations")
MEDIA_TYPES = {
    "geojson": "application/geo+json",
    "geojsonseq": "application/geo+json-seq",
    "csv": "text/csv",
    "flatgeobuf": "application/flatgeobuf",
    "gpkg": "application/geopackage+sqlite3",
    "parquet": "application/vnd.apache.parquet",
}
PAGED = ("geojson", "geojsonseq", "csv", "flatgeobuf")


def read(answer: httpx.Response, form: str, folder: Path) -> list[dict[str, Any]]:
    """The features of an answer by a reader of somebody else's: id, other fields, and geometry's type and bounds."""
    assert answer.status_code == 200, answer.text
    if form == "geojson":
        return [_feature(each) for each in answer.json()["features"]]
    if form == "geojsonseq":
        records = answer.content.split(b"\x1e")
        assert records[0] == b""
        assert all(record.endswith(b"\n") for record in records[1:])
        return [_feature(json.loads(record)) for record in records[1:]]
    if form == "csv":
        lines = answer.content.decode("utf-8-sig")
        assert lines.count("\r\n") == len(lines.splitlines())
        return list(csv.DictReader(io.StringIO(lines)))
    file = folder / f"read.{form}"
    file.write_bytes(answer.content)
    frame = geopandas.read_parquet(file) if form == "parquet" else geopandas.read_file(file)
    assert frame.crs.to_epsg() == 4326
    return [
        {**row, "kind": shape.geom_type, "bounds": shape.bounds}
        for row, shape in zip(frame.drop(columns="geometry").to_dict("records"), frame.geometry, strict=True)
    ]


def _feature(feature: dict[str, Any]) -> dict[str, Any]:
    return {**feature["properties"], "id": feature["id"], "kind": feature["geometry"]["type"]}


def ids_of(features: list[dict[str, Any]]) -> list[str]:
    return sorted(str(each["id"]) for each in features)


@pytest.mark.parametrize("name", COLLECTIONS)
@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_page_has_the_same_features_in_every_format(
    service: Service, tmp_path: Path, name: str, form: str
) -> None:
    address = f"/cities/town/collections/{name}/items"
    answer = service.get(f"{address}?f={form}")

    assert answer.headers["content-type"].partition(";")[0] == MEDIA_TYPES[form]
    found = read(answer, form, tmp_path)
    assert ids_of(found) == ids_of(read(service.get(address), "geojson", tmp_path))
    assert answer.headers["ogc-numbermatched"] == answer.headers["ogc-numberreturned"] == str(len(found))
    assert answer.headers["content-crs"].endswith("/CRS84>")


@pytest.mark.parametrize("name", COLLECTIONS)
@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_download_has_the_same_features_in_every_format(
    service: Service, tmp_path: Path, name: str, form: str
) -> None:
    answer = service.get(f"/cities/town/collections/{name}/download?f={form}")

    assert answer.headers["content-type"].partition(";")[0] == MEDIA_TYPES[form]
    found = read(answer, form, tmp_path)
    items = service.get(f"/cities/town/collections/{name}/items")
    assert ids_of(found) == ids_of(read(items, "geojson", tmp_path))
    assert f"town-{name}." in answer.headers["content-disposition"]


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_accept_chooses_a_format(service: Service, form: str) -> None:
    answer = service.get("/cities/few/collections/assets/items", accept=f"{MEDIA_TYPES[form]}, */*;q=0.1")

    assert answer.headers["content-type"].partition(";")[0] == MEDIA_TYPES[form]


def test_browsers_get_pages_and_other_programs_geojson(service: Service) -> None:
    items = "/cities/few/collections/assets/items"
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

    assert service.get(items, accept=browser).headers["content-type"].startswith("text/html")
    for accept in ("*/*", "image/png", "application/json", ""):
        assert service.get(items, accept=accept).headers["content-type"] == "application/geo+json"


@pytest.mark.parametrize("path", ["items?f=shapefile", "download?f=kml", "download?f="])
def test_a_format_that_is_none_is_refused_with_those_there_are(service: Service, path: str) -> None:
    answer = service.get(f"/cities/town/collections/assets/{path}")

    assert answer.status_code == 400
    assert "geojson" in answer.json()["do"]
    assert "csv" in answer.json()["do"]


@pytest.mark.parametrize("name", COLLECTIONS)
def test_the_fields_of_files_are_the_properties_of_features(service: Service, name: str) -> None:
    feature = service.get(f"/cities/town/collections/{name}/items?limit=1").json()["features"][0]

    assert list(LAYERS[Collection(name)].fields) == ["id", *feature["properties"]]


@pytest.mark.parametrize("form", ["flatgeobuf", "gpkg", "parquet"])
def test_times_numbers_and_truths_keep_their_types(service: Service, tmp_path: Path, form: str) -> None:
    answer = service.get(f"/cities/town/collections/assets/items?f={form}")
    found = {each["id"]: each for each in read(answer, form, tmp_path)}
    said = service.get("/cities/town/collections/assets/items/a00004").json()

    mine, properties = found["a00004"], said["properties"]
    assert mine["verified"] == properties["verified"] is True
    assert mine["probability"] == properties["probability"] == 0.9
    assert mine["first_seen"] == datetime.fromisoformat(properties["first_seen"])
    assert (mine["kind"], mine["bounds"][:2]) == ("Point", tuple(said["geometry"]["coordinates"]))


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_nothing_is_a_file_too(service: Service, tmp_path: Path, form: str) -> None:
    for path in ("items", "download"):
        answer = service.get(f"/cities/town/collections/assets/{path}?f={form}&status=rejected")
        assert read(answer, form, tmp_path) == []


def test_a_csv_is_for_spreadsheets_unless_programs_ask(service: Service) -> None:
    address = "/cities/town/collections/areas/items?f=csv"
    sheet, program = service.get(address).content, service.get(f"{address}&bom=false").content

    assert sheet.startswith(b"\xef\xbb\xbf")
    assert not program.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(program.decode())))
    assert HOSTILE in {row["name"] for row in rows}
    assert rows[0]["WKT"].startswith("MULTIPOLYGON")


def test_a_csv_of_points_has_their_degrees_as_numbers(service: Service) -> None:
    (row,) = csv.DictReader(
        io.StringIO(service.get("/cities/town/collections/assets/items?f=csv&area=B&bom=false").text)
    )

    assert (float(row["longitude"]), float(row["latitude"])) == (100.06, 22.01)
    assert (row["listed"], row["first_missed"]) == ("true", "")


def test_names_of_files_are_the_citys_own_too(service: Service) -> None:
    said = service.get("/cities/many/collections/assets/items?f=csv&limit=1").headers["content-disposition"]

    assert 'filename="many-assets.csv"' in said
    assert "filename*=UTF-8''%E6%99%AE%E6%B4%B1-assets.csv" in said


@pytest.mark.parametrize("form", PAGED)
@pytest.mark.parametrize("by_accept", [True, False])
def test_pages_of_every_format_lead_on_by_a_link_of_its_type(
    service: Service, tmp_path: Path, form: str, by_accept: bool
) -> None:
    accept = MEDIA_TYPES[form] if by_accept else "*/*"
    address = f"/cities/few/collections/assets/items?limit=7{'' if by_accept else f'&f={form}'}"
    pages = [service.get(address, accept=accept)]
    while following := pages[-1].links.get("next"):
        assert following["type"] == MEDIA_TYPES[form]
        # Followed as clients do who say nothing of what they like.
        pages.append(service.client.get(following["url"]))

    ids = [each["id"] for page in pages for each in read(page, form, tmp_path)]
    assert len(ids) == len(set(ids)) == FEW
    assert {page.headers["ogc-numbermatched"] for page in pages} == {str(FEW)}


def test_a_page_names_its_other_formats(service: Service) -> None:
    head = service.get("/cities/few/collections/assets/items?limit=3&class=tree").json()
    others = {link["type"]: link["href"] for link in head["links"] if link["rel"] == "alternate"}

    assert others.keys() == {"text/html", *(MEDIA_TYPES[form] for form in PAGED[1:])}
    assert all("limit=3&class=tree" in href for href in others.values())


def test_a_collection_names_its_downloads_with_conditions_as_items_have(
    service: Service, tmp_path: Path
) -> None:
    said = service.get("/cities/town/collections/assets").json()
    files = {link["type"]: link["href"] for link in said["links"] if link["rel"] == "enclosure"}

    assert files.keys() == set(MEDIA_TYPES.values())
    conditions = "bbox=100,22,100.05,22.05&datetime=2026-02-01&class=tree&area=A"
    found = service.client.get(f"{files['application/geopackage+sqlite3']}&{conditions}")
    assert ids_of(read(found, "gpkg", tmp_path)) == ["a00001", "a00002", "a00003"]


def test_a_download_has_no_limit_and_takes_none(service: Service, tmp_path: Path) -> None:
    for form in MEDIA_TYPES:
        answer = service.get(f"/cities/many/collections/assets/download?f={form}")
        assert len(set(ids_of(read(answer, form, tmp_path)))) == MANY
    assert service.get("/cities/many/collections/assets/download?limit=10").status_code == 400


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_head_of_a_download_makes_no_file(service: Service, form: str) -> None:
    answer = service.client.head(f"/cities/many/collections/assets/download?f={form}")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].partition(";")[0] == MEDIA_TYPES[form]
    assert "content-length" not in answer.headers


def test_pages_lead_back_the_way_they_came(service: Service) -> None:
    onwards = [service.get("/cities/few/collections/assets/items?limit=6").json()]
    while following := [link for link in onwards[-1]["links"] if link["rel"] == "next"]:
        onwards.append(service.client.get(following[0]["href"]).json())
    back = [onwards[-1]]
    while previous := [link for link in back[-1]["links"] if link["rel"] == "prev"]:
        assert previous[0]["type"] == "application/geo+json"
        back.append(service.client.get(previous[0]["href"]).json())

    assert [page["features"] for page in reversed(back)] == [page["features"] for page in onwards]
    assert not [link for link in onwards[0]["links"] if link["rel"] == "prev"]

"""Files of boundaries: what is read, what is mended, what is refused and how."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from inventory.boundaries import AreaFile, DrawnAreas, Fields, read_areas, read_boundary
from inventory.domain.datum import Datum, wgs84_to_gcj02
from inventory.errors import BoundariesUnusable
from tests.support.areas import COUNTIES, SIDE, SOUTH, WEST, square, write_areas

COUNTIES_BY_CODE = [(geometry, {"code": str(fields["adcode"])}) for geometry, fields in COUNTIES]


def _read(path: Path, **options: object) -> DrawnAreas:
    datum = options.pop("datum", None)
    fields = Fields(**{key[:-6]: value for key, value in options.items() if key.endswith("_field")})  # type: ignore[arg-type]
    rest = {key: value for key, value in options.items() if not key.endswith("_field")}
    return read_areas(AreaFile(path=path, fields=fields, **rest), datum)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "crs"),
    [
        ("县.geojson", "EPSG:4326"),
        ("县.gpkg", "EPSG:4326"),
        ("县.gpkg", "EPSG:32647"),
        ("县.shp", "EPSG:4490"),
        ("县.shp", "EPSG:32647"),
    ],
)
def test_every_format_and_crs_gives_the_same_areas(tmp_path: Path, name: str, crs: str) -> None:
    drawn = _read(write_areas(tmp_path / name, COUNTIES, crs=crs, encoding="UTF-8"))
    assert [(area.level, area.code, area.name) for area in drawn.areas] == [
        ("县", "530802", "思茅区"),
        ("县", "530821", "宁洱哈尼族彝族自治县"),
    ]
    for area, (geometry, _) in zip(drawn.areas, COUNTIES, strict=True):
        assert shapely.hausdorff_distance(area.geometry, geometry) < 1e-7
    assert drawn.repairs == ()
    assert drawn.plain_degrees == (crs == "EPSG:4326")


def test_a_shapefile_that_hides_its_encoding_still_has_chinese_names(tmp_path: Path) -> None:
    for encoding in ("GB18030", "UTF-8"):
        path = write_areas(tmp_path / f"{encoding}.shp", COUNTIES, encoding=encoding)
        path.with_suffix(".cpg").unlink()
        table = bytearray(path.with_suffix(".dbf").read_bytes())
        table[29] = 0
        path.with_suffix(".dbf").write_bytes(bytes(table))
        drawn = _read(path)
        assert drawn.areas[0].name == "思茅区"
        assert any(encoding in note for note in drawn.notes)


def test_boundaries_as_chinese_web_maps_publish_them_are_understood(tmp_path: Path) -> None:
    # Codes as numbers, the parent as an object, the centre as a list; the level named.
    properties = {"adcode": 530802, "name": "思茅区", "level": "district", "parent": {"adcode": 530800}}
    feature = {"type": "Feature", "properties": properties, "geometry": square(0, 0).__geo_interface__}
    path = tmp_path / "530800_full.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), encoding="utf-8")
    (area,) = _read(path).areas
    assert (area.level, area.code, area.name, area.parent_code) == ("district", "530802", "思茅区", "530800")


def test_gcj02_boundaries_are_laid_back_on_the_ground(tmp_path: Path) -> None:
    ground = MultiPolygon([shapely.segmentize(square(0, 0, 40, 40), SIDE / 4)])
    on_web_map = shapely.transform(ground, wgs84_to_gcj02)
    assert shapely.hausdorff_distance(ground, on_web_map) * 111_000 > 100
    drawn = _read(write_areas(tmp_path / "a.geojson", [(on_web_map, {"code": 1})]), datum=Datum.GCJ02)
    assert shapely.hausdorff_distance(drawn.areas[0].geometry, ground) * 111_000 < 0.1
    assert any("moved from GCJ-02" in note for note in drawn.notes)


def test_long_edges_of_a_web_map_are_bent_as_the_shift_bends_them(tmp_path: Path) -> None:
    corners = MultiPolygon([square(0, 0, 40, 40)])
    dense = shapely.segmentize(corners, SIDE / 10)
    sparse = _read(write_areas(tmp_path / "a.geojson", [(corners, {"code": 1})]), datum=Datum.GCJ02)
    exact = _read(write_areas(tmp_path / "b.geojson", [(dense, {"code": 1})]), datum=Datum.GCJ02)
    apart = shapely.hausdorff_distance(sparse.areas[0].geometry, exact.areas[0].geometry)
    assert apart * 111_000 < 0.2


def test_invalid_polygons_are_mended_and_reported(tmp_path: Path) -> None:
    bow_tie = Polygon(
        [(WEST, SOUTH), (WEST + SIDE, SOUTH), (WEST, SOUTH + SIDE), (WEST + SIDE, SOUTH + SIDE)]
    )
    drawn = _read(write_areas(tmp_path / "a.geojson", [(bow_tie, {"code": "x"}), *COUNTIES_BY_CODE]))
    (repair,) = drawn.repairs
    assert (repair.code, repair.level) == ("x", "a")
    assert repair.what.startswith("self-intersection at 100.9")
    assert repair.after_m2 > repair.before_m2
    assert all(area.geometry.is_valid for area in drawn.areas)
    assert drawn.areas[0].area_m2 == pytest.approx(drawn.areas[1].area_m2 / 2, rel=0.01)


def test_parts_that_are_no_polygons_are_dropped_and_reported(tmp_path: Path) -> None:
    mixed = GeometryCollection([square(0, 0), LineString([(WEST, SOUTH), (WEST + 1, SOUTH)])])
    label = Point(WEST, SOUTH)
    drawn = _read(write_areas(tmp_path / "a.geojson", [(mixed, {"code": "x"}), (label, {"code": "y"})]))
    assert [area.code for area in drawn.areas] == ["x"]
    assert shapely.hausdorff_distance(drawn.areas[0].geometry, square(0, 0)) < 1e-7
    assert [repair.what for repair in drawn.repairs] == ["LineString parts dropped"]
    assert "y: Point left out: not a polygon" in drawn.notes


def test_rows_of_one_code_are_one_area(tmp_path: Path) -> None:
    rows = [(square(0, 0), {"code": "x", "name": "East"}), (square(1, 0), {"code": "x", "name": "East"})]
    drawn = _read(write_areas(tmp_path / "a.geojson", rows))
    (area,) = drawn.areas
    assert area.geometry.equals(square(0, 0, 2))
    assert "a x: 2 rows joined to one area" in drawn.notes


def test_labels_lose_what_files_add_to_them(tmp_path: Path) -> None:
    rows = [
        (square(0, 0), {"code": 530802.0, "name": " 思茅区 "}),
        (square(1, 0), {"code": 1.0, "name": None}),
    ]
    first, second = _read(write_areas(tmp_path / "a.gpkg", rows)).areas
    assert (first.code, first.name) == ("530802", "思茅区")
    assert (second.code, second.name) == ("1", "1")


def test_fields_and_layers_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    rows = [(square(0, 0), {"ref": "x", "label_zh": "东", "kind": "街道", "above": "p"})]
    write_areas(path, rows, layer="streets")
    write_areas(path, rows, layer="other")
    with pytest.raises(BoundariesUnusable, match="Say --layer: streets, other"):
        _read(path, code_field="ref")
    (area,) = _read(
        path,
        layer="streets",
        code_field="ref",
        name_field="label_zh",
        level_field="kind",
        parent_field="above",
    ).areas
    assert (area.level, area.code, area.name, area.parent_code) == ("街道", "x", "东", "p")


def test_a_boundary_is_all_polygons_of_its_file_together(tmp_path: Path) -> None:
    drawn = read_boundary(write_areas(tmp_path / "b.geojson", COUNTIES))
    assert drawn.geometry.equals(MultiPolygon([square(0, 0, 2)]))


def _geojson(geometry: object) -> str:
    features = [{"type": "Feature", "properties": {"code": "x"}, "geometry": geometry}]
    return json.dumps({"type": "FeatureCollection", "features": features})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n", "is neither GeoJSON nor GeoPackage nor Shapefile"),
        (b"<OGRVRTDataSource><OGRVRTLayer/></OGRVRTDataSource>", "is neither GeoJSON"),
        (b'{"type": "FeatureColl', "cannot be read"),
        (b'{"type": "Topology", "objects": {}, "arcs": []}', "cannot be read|not read|no layer"),
        (b'{"type": "FeatureCollection", "features": []}', "holds no areas|no layer with geometry"),
        (_geojson(None).encode(), "no ground|no layer with geometry"),
        (
            _geojson(LineString([(100, 22), (101, 23)]).__geo_interface__).encode(),
            "holds no polygons, but LineString",
        ),
        (_geojson(box(22.7, 100.9, 22.8, 101.0).__geo_interface__).encode(), "seem to be swapped"),
        (_geojson(box(5e5, 2.5e6, 6e5, 2.6e6).__geo_interface__).encode(), "coordinates out of range"),
        (_geojson(Polygon([(100, 22), (101, 22), (102, 22)]).__geo_interface__).encode(), "has no ground"),
    ],
)
def test_a_file_that_holds_no_areas_is_refused_in_one_message(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "areas.geojson"
    path.write_bytes(content)
    with pytest.raises(BoundariesUnusable, match=message) as refused:
        _read(path)
    assert refused.value.where == str(path)
    assert "\n" not in str(refused.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BoundariesUnusable, match="no such file"):
        _read(tmp_path / "missing.geojson")
    with pytest.raises(BoundariesUnusable, match="is no file"):
        _read(tmp_path)


def test_a_shapefile_without_crs_is_refused(tmp_path: Path) -> None:
    path = write_areas(tmp_path / "a.shp", COUNTIES)
    path.with_suffix(".prj").unlink()
    with pytest.raises(BoundariesUnusable, match=r"the \.prj beside a\.shp is missing"):
        _read(path)
    with pytest.raises(BoundariesUnusable, match=r"Give a\.shp"):
        _read(path.with_suffix(".dbf"))


def test_a_file_without_codes_names_its_fields(tmp_path: Path) -> None:
    path = write_areas(tmp_path / "a.geojson", [(square(0, 0), {"strasse": "x", "fläche": 1})])
    with pytest.raises(BoundariesUnusable, match=r"--code-field\. Its fields: strasse, fläche"):
        _read(path)
    with pytest.raises(BoundariesUnusable, match=r"has no field “ref”\. Its fields: strasse, fläche"):
        _read(path, code_field="ref")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"code": "x", "level": "a"}, {"code": "x", "level": "b"}], "stands in level “a” and in level “b”"),
        ([{"code": "x", "level": "a"}, {"code": None, "level": "a"}], "row 2 has no code in field “code”"),
        ([{"code": "x", "level": "a"}, {"code": "y", "level": " "}], "row 2 has no level"),
        ([{"code": "outside", "level": "a"}], "means the ground outside all areas"),
    ],
)
def test_areas_need_codes_of_their_own(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    path = write_areas(tmp_path / "a.geojson", [(square(n, 0), row) for n, row in enumerate(rows)])
    with pytest.raises(BoundariesUnusable, match=message):
        _read(path)


def test_an_area_without_a_polygon_is_refused_rather_than_ended(tmp_path: Path) -> None:
    path = write_areas(tmp_path / "a.gpkg", [(square(0, 0), {"code": "x"}), (None, {"code": "y"})])
    with pytest.raises(BoundariesUnusable, match="“y” has no ground: its polygon is missing"):
        _read(path)


def test_coordinates_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = Polygon([(WEST, SOUTH), (WEST + SIDE, np.inf), (WEST + SIDE, SOUTH + SIDE)])
    path = write_areas(tmp_path / "a.gpkg", [(broken, {"code": "x"})])
    with pytest.raises(BoundariesUnusable, match="not finite"):
        _read(path)

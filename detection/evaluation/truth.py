"""Georeferenced truth: the objects of a GeoJSON file, laid on a scene that knows where it is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from detection.errors import LabelsUnusable
from detection.evaluation.labels import Boxes
from detection.imagery.scene import Scene, open_scene

_Row: TypeAlias = tuple[tuple[float, float, float, float], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthFile:
    """The features of a GeoJSON file.

    Attributes:
        crs: the file's own: its older ``crs`` member, else EPSG:4326.
        geometries: polygons or points, in units of ``crs``.
        properties: of each feature, in the same order.
    """

    path: Path
    crs: CRS
    geometries: Sequence[BaseGeometry]
    properties: Sequence[dict[str, Any]]

    @property
    def are_points(self) -> bool:
        """Whether all features are points."""
        return bool(self.geometries) and all(geometry.geom_type == "Point" for geometry in self.geometries)

    def class_names(self, default: str) -> list[str]:
        """The class that each feature names (``label``, ``class`` or ``name``)."""
        return [
            str(next((row[key] for key in ("label", "class", "name") if row.get(key)), default))
            for row in self.properties
        ]

    def splits(self) -> list[str]:
        """Property ``split`` of each feature; empty where there is none."""
        return [str(row.get("split") or "") for row in self.properties]

    def boxes_on(self, scene: Scene) -> Boxes:
        """(n, 4) float64: bounding boxes in pixels of the scene, y down; points without extent."""
        to_scene = Transformer.from_crs(self.crs, scene.located_crs, always_xy=True)
        boxes = np.empty((len(self.geometries), 4))
        to_pixel = ~scene.transform
        for index, geometry in enumerate(self.geometries):
            x, y = to_scene.transform(*shapely.get_coordinates(geometry).T)
            column, row = to_pixel @ (np.asarray(x), np.asarray(y))
            boxes[index] = column.min(), row.min(), column.max(), row.max()
        return boxes


def read_truth(path: Path) -> TruthFile:
    """Reads a GeoJSON file of objects.

    Raises:
        LabelsUnusable: not GeoJSON, or a CRS nobody knows.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        crs = CRS.from_user_input((document.get("crs") or {}).get("properties", {}).get("name", "EPSG:4326"))
        features = [feature for feature in document["features"] if feature.get("geometry")]
        geometries = [shapely.from_geojson(json.dumps(item["geometry"])) for item in features]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CRSError, ShapelyError) as error:
        raise LabelsUnusable(f"not a GeoJSON file of objects: {error}", where=str(path)) from error
    return TruthFile(
        path=path,
        crs=crs,
        geometries=geometries,
        properties=[feature.get("properties") or {} for feature in features],
    )


def boxes_on_picture(path: Path, picture: Path, *, default_name: str) -> list[_Row]:
    """Rows (box in pixels, class name) of a GeoJSON file on a georeferenced picture."""
    truth = read_truth(path)
    boxes = truth.boxes_on(open_scene(picture))
    names = truth.class_names(default_name)
    return [
        ((float(a), float(b), float(c), float(d)), name)
        for (a, b, c, d), name in zip(boxes, names, strict=True)
    ]


def inside(boxes: Boxes, size_px: tuple[int, int]) -> NDArray[np.bool_]:
    """Which boxes have their centre on a picture of this size."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.asarray(((centre >= 0) & (centre < size_px)).all(axis=1))

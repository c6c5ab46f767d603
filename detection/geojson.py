"""Observations as GeoJSON (RFC 7946): for looking at, without any database."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.imagery.georeference import to_ground
from detection.imagery.scene import Scene, to_lon_lat
from detection.sweep import Observations
from detection.taxonomy import Taxonomy

#: Decimals of a degree: 1 cm.
_DECIMALS = 7


def features(
    observations: Observations, scene: Scene, taxonomy: Taxonomy, *, as_points: bool = False
) -> Iterator[dict[str, Any]]:
    """One Feature an observation, EPSG:4326: its box on the ground, or the box's centre.

    ``plausible`` says whether its size fits its class (null: the taxonomy does not know the class): what does not
    is no silent count.
    """
    names = np.array(observations.classes, object)[observations.class_index]
    plausible = taxonomy.plausible(names, observations.size_m.max(axis=1, initial=0))
    shapes = observations.lon_lat if as_points else outlines_lon_lat(observations.box_px, scene)
    kind = "Point" if as_points else "Polygon"
    for index, shape in enumerate(shapes.round(_DECIMALS).tolist()):
        width_m, height_m = observations.size_m[index].tolist()
        yield {
            "type": "Feature",
            "geometry": {"type": kind, "coordinates": shape if as_points else [shape]},
            "properties": {
                "class": names[index],
                "score": round(float(observations.score[index]), 3),
                "width_m": round(width_m, 2),
                "height_m": round(height_m, 2),
                "plausible": bool(plausible[index]) if names[index] in taxonomy.classes else None,
                "error_m": round(float(observations.error_m[index]), 2),
                "scene": scene.name,
            },
        }


def outlines_lon_lat(boxes_px: NDArray[np.float32], scene: Scene) -> NDArray[np.float64]:
    """(n, 5, 2) closed rings around the boxes, counter-clockwise, longitude and latitude."""
    left, top, right, bottom = boxes_px.astype(np.float64).T
    columns = np.stack([left, left, right, right, left], axis=1)
    rows = np.stack([top, bottom, bottom, top, top], axis=1)
    x, y = to_ground(scene, columns, rows)
    lon, lat = to_lon_lat(scene.located_crs, x, y)
    rings = np.stack([lon, lat], axis=2)
    # North-up rasters give counter-clockwise rings this way round; south-up and mirrored ones the other.
    is_mirrored = scene.transform.determinant > 0
    return np.ascontiguousarray(rings[:, ::-1] if is_mirrored else rings)

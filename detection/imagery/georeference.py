"""From boxes in a scene's pixels to places on the ground, with sizes and errors in metres."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from detection.imagery.scene import Scene, laid_out
from detection.models import CardEvidence

BoxesPx = NDArray[np.float32]
"""(n, 4): x_min, y_min, x_max, y_max in native pixels of a scene, y down."""

#: Standard error of where a nadir scene lies, where nothing better is known (R6).
GEOREFERENCE_ERROR_M = 1.0
#: Standard error of a box's centre as a share of its longer side, for models whose card has no measured one.
UNMEASURED_BOX_ERROR = 0.1


def centres_lon_lat(boxes_px: BoxesPx, scene: Scene) -> NDArray[np.float64]:
    """(n, 2) longitude and latitude of the boxes' centres, EPSG:4326; NaN for a scene that lies nowhere."""
    if scene.crs is None:
        return np.full((len(boxes_px), 2), np.nan)
    # float64 first: at a UTM northing two neighbouring float32 values lie half a metre apart.
    left, top, right, bottom = boxes_px.astype(np.float64).T
    x, y = to_ground(scene, (left + right) / 2, (top + bottom) / 2)
    transformer = Transformer.from_crs(scene.crs, 4326, always_xy=True)
    return np.stack(transformer.transform(x, y), axis=1)


def to_ground(
    scene: Scene, column: NDArray[np.float64], row: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y in the scene's CRS of points in its pixels (0, 0 is the first pixel's corner)."""
    return laid_out(scene.transform, column, row)


def to_pixels(
    scene: Scene, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row in the scene's pixels of points in its CRS; the inverse of ``to_ground``."""
    a, b, c, d, e, f = scene.transform[:6]
    determinant = a * e - b * d
    # Differences first: the inverse's own offset would cancel digits at UTM northings.
    east, north = x - c, y - f
    return (e * east - b * north) / determinant, (a * north - d * east) / determinant


def sizes_m(boxes_px: BoxesPx, scene: Scene) -> NDArray[np.float32]:
    """(n, 2) width and height in metres of ground, along the scene's columns and rows."""
    left, top, right, bottom = boxes_px.T
    across, down = scene.pixel_ground_m
    return np.stack([(right - left) * across, (bottom - top) * down], axis=1).astype(np.float32)


def position_errors_m(
    size_m: NDArray[np.float32],
    class_index: NDArray[np.int16],
    classes: tuple[str, ...],
    evidence: Mapping[str, CardEvidence],
) -> NDArray[np.float32]:
    """(n,) standard error of position: the scene's and the box's, independent of one another (R6).

    The box's is the card's measured one, else a tenth of the object's longer side.
    """
    measured = np.array(
        [evidence[name].position_error_m if name in evidence else np.nan for name in classes],
        np.float32,
    )
    box = measured[class_index]
    box = np.where(np.isnan(box), UNMEASURED_BOX_ERROR * size_m.max(axis=1, initial=0.0), box)
    return np.hypot(box, GEOREFERENCE_ERROR_M).astype(np.float32)

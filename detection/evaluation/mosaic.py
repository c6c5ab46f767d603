"""Patches laid together again: neighbours' pixels as one picture, cut objects as one object.

A data set cut into patches counts a crown on a seam twice. Where a table says which patch lies where,
the truth is merged, so that a model is measured on objects and not on the cutter's pieces.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from detection.errors import LabelsUnusable
from detection.evaluation.labels import Boxes, LabelledPicture

#: Two parts are one object when both touch the seam and their ends along it agree this well.
SEAM_TOLERANCE_PX = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mosaic:
    """Patches as one picture.

    Attributes:
        pixels: (rows, columns, 3) uint8; black where a patch is missing.
        boxes_px, class_index: merged objects, in pixels of the mosaic.
        patch_px: width and height of a patch.
        present: share of the mosaic that patches cover.
        joined: how many cuts were healed.
    """

    pixels: NDArray[np.uint8]
    boxes_px: Boxes
    class_index: NDArray[np.int16]
    patch_px: tuple[int, int]
    present: float
    joined: int


def layout_beside(pictures: Path) -> Path | None:
    """The table ``patches.csv`` in a folder of pictures or one above, if there is one."""
    places = (pictures / "patches.csv", pictures.parent / "patches.csv")
    return next((place for place in places if pictures.is_dir() and place.is_file()), None)


def lay_together(pictures: Sequence[LabelledPicture], layout: Path) -> Mosaic:
    """Puts patches where the table has them and merges the objects that their seams cut.

    Args:
        layout: csv with columns ``patch`` (or ``image``), ``row`` and ``col``.

    Raises:
        LabelsUnusable: a patch without a place, or patches of different sizes.
    """
    places = _places(layout)
    unplaced = [p.path.name for p in pictures if p.path.stem not in places]
    if unplaced:
        raise LabelsUnusable(f"no row and col for {unplaced[0]}", where=str(layout))
    grid = np.array([places[picture.path.stem] for picture in pictures])
    grid -= grid.min(axis=0)
    images = [np.asarray(_rgb(picture.path)) for picture in pictures]
    height, width = images[0].shape[:2]
    rows, columns = grid.max(axis=0) + 1
    pixels = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    moved = []
    for picture, image, (row, column) in zip(pictures, images, grid, strict=True):
        if image.shape[:2] != (height, width):
            raise LabelsUnusable("patches of different sizes", where=str(picture.path))
        x, y = column * width, row * height
        pixels[y : y + height, x : x + width] = image
        moved.append(picture.boxes_px + np.array([x, y, x, y]))
    boxes = np.concatenate(moved)
    classes = np.concatenate([picture.class_index for picture in pictures])
    merged, merged_class = merge_parts(boxes, classes, (width, height))
    return Mosaic(
        pixels=pixels,
        boxes_px=merged,
        class_index=merged_class,
        patch_px=(width, height),
        present=len(pictures) / float(rows * columns),
        joined=len(boxes) - len(merged),
    )


def merge_parts(
    boxes: Boxes, class_index: NDArray[np.int16], patch_px: tuple[int, int]
) -> tuple[Boxes, NDArray[np.int16]]:
    """Boxes that a seam cut, made one again.

    Parts join when they are of one class, touch the same seam from both sides, and their ends along
    it agree within ``SEAM_TOLERANCE_PX``; an object over four patches joins along all four seams.

    Args:
        boxes: (n, 4) in pixels of the mosaic, each within its patch.
        patch_px: width and height of a patch: seams lie at their multiples.
    """
    first, second = [], []
    for axis, span in enumerate(patch_px):
        near, far = _at_seam(boxes[:, axis], span), _at_seam(boxes[:, axis + 2], span)
        for a in np.flatnonzero(far > 0):
            others = np.flatnonzero((near == far[a]) & (class_index == class_index[a]))
            along = [1 - axis, 3 - axis]
            ends = np.abs(boxes[others][:, along] - boxes[a, along]).max(axis=1)
            for b in others[ends <= SEAM_TOLERANCE_PX]:
                first.append(int(a))
                second.append(int(b))
    size = len(boxes)
    links = coo_array((np.ones(len(first)), (first, second)), shape=(size, size))
    groups, group = connected_components(links, directed=False)
    merged = np.empty((groups, 4))
    merged[:, :2], merged[:, 2:] = np.inf, -np.inf
    np.minimum.at(merged[:, :2], group, boxes[:, :2])
    np.maximum.at(merged[:, 2:], group, boxes[:, 2:])
    classes = np.zeros(groups, dtype=np.int16)
    classes[group] = class_index
    return merged, classes


def _at_seam(edge: NDArray[np.float64], span: int) -> NDArray[np.int64]:
    """Number of the seam an edge lies on (1 is the first inner one), 0 for none."""
    number = np.rint(edge / span)
    return np.where(np.abs(edge - number * span) <= 1.0, number, 0).astype(np.int64)


def _places(layout: Path) -> dict[str, tuple[int, int]]:
    try:
        with layout.open(newline="", encoding="utf-8-sig") as file:
            return {
                Path(row.get("patch") or row["image"]).stem: (int(row["row"]), int(row["col"]))
                for row in csv.DictReader(file)
            }
    except (KeyError, ValueError) as error:
        raise LabelsUnusable(
            f"not a table of patches: {error!r}", where=str(layout), do="Columns: patch, row, col."
        ) from error


def _rgb(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise LabelsUnusable(f"the picture cannot be read: {error}", where=str(path)) from error

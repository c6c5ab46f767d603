"""Which pixels of a raster were surveyed: mask, alpha, nodata value, or a black or white border.

Kept as a coarse grid of cells (void, mixed, full) found while a scene is read once; the exact mask of a
window is made from its own pixels, and only where a cell is not full.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio import features
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

Mask = NDArray[np.bool_]
"""(rows, columns), true where a pixel is valid."""

#: JPEG makes the edge of a pure black border slightly non-black; in ``ortho-manila`` values reach 10 beside
#: it.
BORDER_TOLERANCE = 12
#: A border component covers at least this share of the raster: a dark roof at the edge is not a border.
MIN_BORDER_SHARE = 0.001
#: Side of the smallest cell; larger rasters get cells so that neither side has more than ``MAX_CELLS``.
CELL_PX = 8
MAX_CELLS = 2048


class CellState(IntEnum):
    """What a cell of the coarse grid holds."""

    VOID = 0
    MIXED = 1
    FULL = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Validity:
    """The surveyed pixels of one raster.

    Attributes:
        size_px: columns, rows of the raster.
        cell_px: side of a cell.
        cells: (rows, columns) uint8 of ``CellState``; None where every pixel is valid.
        border: (rows, columns) bool: cells in which a near-black (``border_is_white``: near-white) pixel is
            border; None without one.
    """

    size_px: tuple[int, int]
    cell_px: int = CELL_PX
    cells: NDArray[np.uint8] | None = None
    border: NDArray[np.bool_] | None = None
    border_is_white: bool = False

    @property
    def share(self) -> float:
        """Share of the raster that is valid, mixed cells counted half."""
        if self.cells is None:
            return 1.0
        return float(self.cells.mean()) / CellState.FULL

    def is_full(self, column: int, row: int, width: int, height: int) -> bool:
        """Whether every pixel of a rectangle inside the raster is valid."""
        return self.cells is None or bool(
            (self._cells_in(self.cells, column, row, width, height) == CellState.FULL).all()
        )

    def is_void(self, column: int, row: int, width: int, height: int) -> bool:
        """Whether no pixel of a rectangle, clipped to the raster, is valid."""
        right = min(column + width, self.size_px[0])
        bottom = min(row + height, self.size_px[1])
        column, row = max(column, 0), max(row, 0)
        if right <= column or bottom <= row:
            return True
        if self.cells is None:
            return False
        found = self._cells_in(self.cells, column, row, right - column, bottom - row)
        return not found.any()

    def border_mask(self, rgb: NDArray[np.uint8], column: int, row: int) -> Mask | None:
        """Pixels of a rectangle that are not border, or None where it has no border cell.

        Args:
            rgb: (3, rows, columns) uint8 of the rectangle whose first pixel is (column, row).
        """
        if self.border is None:
            return None
        height, width = rgb.shape[1:]
        near = self._cells_in(self.border, column, row, width, height)
        if not near.any():
            return None
        if self.border_is_white:
            extreme = rgb.min(axis=0) >= 255 - BORDER_TOLERANCE
        else:
            extreme = rgb.max(axis=0) <= BORDER_TOLERANCE
        rows = (np.arange(row, row + height) // self.cell_px) - row // self.cell_px
        columns = (np.arange(column, column + width) // self.cell_px) - column // self.cell_px
        mask: Mask = ~(extreme & near[np.ix_(rows, columns)])
        return mask

    def outline_px(self) -> BaseGeometry:
        """The surveyed ground as polygons in the raster's pixels, to about one cell."""
        width, height = self.size_px
        whole = shapely.box(0, 0, width, height)
        if self.cells is None:
            return whole
        kept = (self.cells >= CellState.MIXED).astype(np.uint8)
        grid = features.shapes(kept, mask=kept.astype(bool), transform=Affine.scale(self.cell_px))
        pieces = shapely.union_all([shape(geometry) for geometry, _ in grid])
        # Half a cell comes off where cells are mixed: their valid part is half of them on average.
        mixed = (self.cells == CellState.MIXED).any()
        pieces = pieces.simplify(self.cell_px) if mixed else pieces
        outline: BaseGeometry = shapely.make_valid(pieces).intersection(whole)
        return outline

    def _cells_in(self, cells: NDArray[Any], column: int, row: int, width: int, height: int) -> NDArray[Any]:
        side = self.cell_px
        return cells[
            row // side : (row + height - 1) // side + 1,
            column // side : (column + width - 1) // side + 1,
        ]


def cell_side_px(width: int, height: int) -> int:
    """Side of the cells for a raster of this size: 8 px, doubled until no side has more than 2,048."""
    side = CELL_PX
    while max(width, height) > side * MAX_CELLS:
        side *= 2
    return side


def all_in_cells(flags: Mask, side: int) -> Mask:
    """Per cell of ``side`` pixels, whether all flags are set; cells at the far edges may be smaller."""
    rows, columns = flags.shape
    # Rows first: that runs along memory, and leaves an eighth for the slow direction.
    down = np.logical_and.reduceat(flags, np.arange(0, rows, side), axis=0)
    return np.logical_and.reduceat(down, np.arange(0, columns, side), axis=1)


def find_border(extreme_cells: Mask, *, is_white: bool) -> Mask:
    """Cells in which border pixels may lie: extreme cells connected to the raster's edge, and two around.

    White must reach a corner of the raster (sunlit roofs at its edge are pure white too).

    Args:
        extreme_cells: cells whose pixels are all exactly black (white).
    """
    # Here, not above: only scenes with black or white cells need it, and it loads slowly.
    from scipy import ndimage

    labels, _ = ndimage.label(extreme_cells)
    if is_white:
        seeds = labels[[0, 0, -1, -1], [0, -1, 0, -1]]
    else:
        seeds = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    found = np.unique(seeds[seeds > 0])
    sizes = ndimage.sum_labels(extreme_cells, labels, found) if found.size else np.empty(0)
    large = found[np.asarray(sizes) >= max(4.0, MIN_BORDER_SHARE * extreme_cells.size)]
    border = np.isin(labels, large)
    # JPEG rings reach 16 px (one block of subsampled colour) from a pure cell.
    grown: Mask = ndimage.binary_dilation(border, np.ones((3, 3), bool), iterations=2)
    return grown if large.size else border

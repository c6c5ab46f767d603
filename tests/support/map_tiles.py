"""Vector tiles as GDAL reads them."""

from pathlib import Path
from typing import Any

import pyogrio

from inventory.domain.tiles import Tile


def decoded(content: bytes, folder: Path, layer: str = "assets", tile: Tile | None = None) -> Any:
    """A tile's layer as a frame; in degrees where the tile is named, else in steps of the tile, y upwards."""
    file = folder / "tile.pbf"
    file.write_bytes(content)
    where = {} if tile is None else {"X": tile.column, "Y": tile.row, "Z": tile.zoom}
    frame = pyogrio.read_dataframe(f"MVT:{file}", layer=layer, use_arrow=False, **where)
    return frame if tile is None else frame.to_crs(4326)


def layers(content: bytes, folder: Path) -> list[str]:
    """The names of a tile's layers."""
    file = folder / "tile.pbf"
    file.write_bytes(content)
    return [str(name) for name in pyogrio.list_layers(f"MVT:{file}")[:, 0]] if content else []


def counted(frame: Any) -> int:
    """How many assets a frame speaks of: points, and what clusters hold."""
    if "count" not in frame.columns:
        return len(frame)
    return int(frame["count"].fillna(1).sum())

"""Which bands of a raster are red, green and blue, and how its numbers become 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

RasterPixels = NDArray[Any]
"""(bands, rows, columns) as stored in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """How stored numbers become 8-bit RGB.

    Attributes:
        rgb: 1-based numbers of the bands shown as red, green, blue; a grey image names one band thrice.
        alpha: band that says which pixels are valid, if any.
        near_infrared: band of near infrared, if any.
        is_infrared: near infrared, red and green are shown as red, green and blue.
        palette: 256 × 3 bytes when the single band holds indices of colours.
        stretch: the stored values that become 0 and 255; None for 8-bit bands.
        assumed: what was decided without being told, in words for the pre-flight.
    """

    rgb: tuple[int, int, int]
    alpha: int | None = None
    near_infrared: int | None = None
    is_infrared: bool = False
    palette: bytes | None = None
    stretch: tuple[float, float] | None = None
    assumed: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[int, ...]:
        """The distinct bands to read, in the file's order."""
        return tuple(dict.fromkeys(self.rgb))

    def to_rgb(self, stored: RasterPixels) -> NDArray[np.uint8]:
        """(3, rows, columns) uint8 from the bands of ``read``; without a copy for plain 8-bit RGB."""
        if self.palette is not None:
            table = np.frombuffer(self.palette, np.uint8).reshape(-1, 3)
            colours = table[np.minimum(stored[0], len(table) - 1)]
            return np.ascontiguousarray(np.moveaxis(colours, -1, 0), np.uint8)
        pixels = stored if self.stretch is None else _stretched(stored, *self.stretch)
        order = tuple(self.read.index(band) for band in self.rgb)
        rgb: NDArray[np.uint8] = pixels if order == (0, 1, 2) else pixels[list(order)]
        return rgb

    def without_alpha(self, reason: str) -> "Bands":
        """The same with the alpha band taken for near infrared, and the reason noted."""
        return replace(self, alpha=None, near_infrared=self.alpha, assumed=(*self.assumed, reason))

    def infrared(self) -> "Bands | None":
        """The same shown in near infrared, red, green; None without such a band."""
        if self.near_infrared is None or self.palette is not None:
            return None
        red, green, _ = self.rgb
        return replace(self, rgb=(self.near_infrared, red, green), is_infrared=True)


def _stretched(stored: RasterPixels, low: float, high: float) -> NDArray[np.uint8]:
    scale = np.float32(255.0 / (high - low))
    levels: NDArray[np.float32] = (stored.astype(np.float32) - np.float32(low)) * scale
    return np.clip(np.rint(np.nan_to_num(levels)), 0, 255).astype(np.uint8)


_NEAR_INFRARED = {"nir", "near infrared", "near-infrared", "nearinfrared", "near_infrared"}


def bands_of(dataset: Any) -> Bands:
    """The mapping that the colour interpretation of an open dataset, or else custom, gives."""
    names = _colour_roles(dataset.colorinterp, dataset.descriptions)
    roles: dict[str, int] = dict(zip(names, dataset.indexes, strict=True))
    alpha = roles.get("alpha")
    others = [band for band in dataset.indexes if band != alpha]
    if "palette" in roles:
        return Bands(rgb=(1, 1, 1), palette=_palette(dataset.colormap(1)))
    if {"red", "green", "blue"} <= roles.keys():
        rgb = (roles["red"], roles["green"], roles["blue"])
        return Bands(rgb=rgb, alpha=alpha, near_infrared=_near_infrared(roles, others, rgb))
    if len(others) >= 3:
        first = (others[0], others[1], others[2])
        return Bands(rgb=first, alpha=alpha, assumed=(f"bands {first} taken for red, green, blue",))
    grey = others[0] if others else 1
    return Bands(rgb=(grey, grey, grey), alpha=alpha, assumed=("a grey image shown as RGB",))


def _near_infrared(roles: dict[str, int], others: list[int], rgb: tuple[int, int, int]) -> int | None:
    """The band that says so, else the only one beside red, green and blue."""
    if "nir" in roles:
        return roles["nir"]
    left = [band for band in others if band not in rgb]
    return left[0] if len(left) == 1 else None


def _colour_roles(interpretations: Sequence[ColorInterp], descriptions: Sequence[str | None]) -> list[str]:
    # Descriptions decide where the interpretation is silent: drone software names bands, GDAL only
    # marks three-band bytes. Unnamed bands get distinct keys.
    roles: list[str] = []
    for number, (colour, description) in enumerate(zip(interpretations, descriptions, strict=True)):
        name = (description or "").strip().lower()
        name = "nir" if name in _NEAR_INFRARED else name
        spoken = name in {"red", "green", "blue", "nir"} and colour.name in {"undefined", "gray"}
        role = name if spoken else colour.name
        roles.append(f"{role}-{number}" if role in {"undefined", *roles} else role)
    return roles


def _palette(colormap: dict[int, tuple[int, int, int, int]]) -> bytes:
    table = np.zeros((256, 3), np.uint8)
    for index, colour in colormap.items():
        table[index] = colour[:3]
    return table.tobytes()


def stretch_of(sample: RasterPixels, valid: NDArray[np.bool_]) -> tuple[float, float]:
    """The stored values to show as 0 and 255: percentiles 0.5 and 99.5 over the sampled valid pixels.

    One pair for all bands, so hues stay; bands that hold 8-bit values in a deeper type are left alone.

    Args:
        sample: (bands, n) stored values.
        valid: (n,) which of them count.
    """
    values = sample[:, valid]
    values = values[np.isfinite(values)]
    if values.size == 0:
        return (0.0, 255.0)
    if np.issubdtype(sample.dtype, np.integer) and values.min() >= 0 and values.max() <= 255:
        return (0.0, 255.0)
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1.0)


def has_mask(dataset: Any) -> bool:
    """Whether a mask band inside the file, not alpha, says which pixels are valid."""
    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

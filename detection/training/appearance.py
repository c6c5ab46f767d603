"""Appearance: the same ground under another sun, camera and exporter.

What carried a pilot's model badly from one place to another was not the shape of crowns but light:
sharper and brighter imagery, brown conifers. So windows are changed in brightness, contrast, colour
and sharpness before a network sees them; never in geometry, which ``windows`` does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps


@dataclass(frozen=True, slots=True, kw_only=True)
class AppearanceRange:
    """How far each property goes; factors are drawn log-uniformly between 1/x and x.

    Attributes:
        gamma, brightness, contrast, saturation: greatest factor.
        channel_gain: greatest factor of one colour channel (colour of the light, haze).
        hue_degrees: greatest turn of the hue: green crowns become brown or bluish ones.
        grey: share of windows without any colour, so that shape must tell.
        equalised: share with stretched histogram, as exporters do it.
        softened, sharpened: shares; radius up to ``blur_px``, strength up to ``sharpen``.
    """

    gamma: float = 1.7
    brightness: float = 1.35
    contrast: float = 1.4
    saturation: float = 1.9
    channel_gain: float = 1.12
    hue_degrees: float = 22.0
    grey: float = 0.06
    equalised: float = 0.12
    softened: float = 0.2
    blur_px: float = 1.2
    sharpened: float = 0.3
    sharpen: float = 1.3
    noise: float = 6.0


DEFAULT_RANGE = AppearanceRange()


def vary_appearance(
    window: Image.Image, random: np.random.Generator, reach: AppearanceRange = DEFAULT_RANGE
) -> Image.Image:
    """The window in another light.

    Args:
        window: RGB, 8 bits.
        random: source of the draw; the same state gives the same picture.
    """
    if random.random() < reach.equalised:
        stretched = (
            ImageOps.equalize(window) if random.random() < 0.5 else ImageOps.autocontrast(window, cutoff=2)
        )
        window = Image.blend(window, stretched, float(random.uniform(0.4, 1.0)))
    window = _curves(window, random, reach)
    window = ImageEnhance.Contrast(window).enhance(_factor(random, reach.contrast))
    if random.random() < reach.grey:
        window = ImageOps.grayscale(window).convert("RGB")
    else:
        window = _turn_hue(window, float(random.uniform(-1, 1)) * reach.hue_degrees)
        window = ImageEnhance.Color(window).enhance(_factor(random, reach.saturation))
    return _texture(window, random, reach)


def _factor(random: np.random.Generator, greatest: float) -> float:
    return float(np.exp(random.uniform(-1, 1) * np.log(greatest)))


def _curves(window: Image.Image, random: np.random.Generator, reach: AppearanceRange) -> Image.Image:
    """Gamma, brightness and the light's colour, as one table of 256 values a channel."""
    level = np.linspace(0, 1, 256)
    shaped = level ** _factor(random, reach.gamma) * _factor(random, reach.brightness)
    tables = [shaped * _factor(random, reach.channel_gain) for _ in range(3)]
    table = np.clip(np.concatenate(tables) * 255, 0, 255).round().astype(np.uint8)
    return window.point(table.tolist())


def _turn_hue(window: Image.Image, degrees: float) -> Image.Image:
    hue, saturation, value = window.convert("HSV").split()
    turn = round(degrees / 360 * 256)
    turned = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _texture(window: Image.Image, random: np.random.Generator, reach: AppearanceRange) -> Image.Image:
    draw = random.random()
    if draw < reach.softened:
        window = window.filter(ImageFilter.GaussianBlur(random.uniform(0.3, reach.blur_px)))
    elif draw < reach.softened + reach.sharpened:
        percent = int(random.uniform(40, reach.sharpen * 100))
        window = window.filter(ImageFilter.UnsharpMask(random.uniform(0.8, 2.0), percent, 0))
    if random.random() < 0.3:
        pixels: NDArray[np.float32] = np.asarray(window, dtype=np.float32)
        grain = random.normal(0, random.uniform(1, reach.noise), pixels.shape)
        window = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    return window

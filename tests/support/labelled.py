"""Makers of labelled pictures: drawn, seeded, small."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from detection.evaluation.labels import Boxes
from detection.evaluation.measures import Ground


def draw_crowns(side_px: int, boxes: Boxes, *, seed: int = 0) -> Image.Image:
    """Green discs on sandy ground: an eye's idea of trees from above."""
    random = np.random.default_rng(seed)
    ground = np.full((side_px, side_px, 3), (180, 160, 130), dtype=np.uint8)
    ground += random.integers(0, 12, ground.shape, dtype=np.uint8)
    image = Image.fromarray(ground)
    pen = ImageDraw.Draw(image)
    for box in boxes.tolist():
        pen.ellipse(box, fill=(30, 90, 35))
    return image


def write_labelled_folder(folder: Path, count: int, *, side_px: int = 256, seed: int = 0) -> None:
    """``images/*.png`` and ``labels/*.txt`` in the form xyxy, some crowns on each."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(count):
        centres = random.uniform(30, side_px - 30, (6, 2))
        boxes = np.concatenate([centres - 18, centres + 18], axis=1).round()
        draw_crowns(side_px, boxes, seed=number).save(folder / "images" / f"{number:02d}.png")
        lines = [" ".join(f"{value:.0f}" for value in box) for box in boxes.tolist()]
        (folder / "labels" / f"{number:02d}.txt").write_text("\n".join(lines))


def make_ground(
    truth: list[list[float]],
    detected: list[list[float]],
    scores: list[float],
    *,
    name: str = "ground",
    points: bool = False,
    ground_resolution_m: float = 0.1,
    area_km2: float = 0.01,
) -> Ground:
    """A ground of one class."""
    return Ground(
        name=name,
        truth_px=np.array(truth, dtype=np.float64).reshape(-1, 4),
        truth_class=np.zeros(len(truth), dtype=np.int16),
        detected_px=np.array(detected, dtype=np.float64).reshape(-1, 4),
        detected_class=np.zeros(len(detected), dtype=np.int16),
        scores=np.array(scores, dtype=np.float32),
        ground_resolution_m=ground_resolution_m,
        area_km2=area_km2,
        points=points,
    )

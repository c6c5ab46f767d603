"""A wheel like the demo's, with drawn scenes whose trees are known, and the description that fits it."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detection.evaluation.labels import LabelFormat
from inventory.demo_scenes import (
    MIRROR_FOLDER,
    CityScene,
    Demo,
    DemoArea,
    DemoCity,
    DemoScene,
    DemoSource,
    DemoWheel,
    OutlinedArea,
)
from tests.support.networks import SQUARE_PX
from tests.support.scenes import draw_ground, draw_squares, make_scene_file

SIDE_PX = 240
PIXEL_M = 0.2
FILE = "scenes-1.0-py3-none-any.whl"
DENSE = "dense/city.tif"
CARS = ((4, 4), (220, 220))
IMAGE, LABELS = "scenes/data/west.png", "scenes/data/west.xml"


def voc(corners: Sequence[tuple[int, int]]) -> bytes:
    """Pascal VOC labels of squares at upper left corners."""
    objects = "".join(
        f"<object><name>Tree</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{x + SQUARE_PX}</xmax><ymax>{y + SQUARE_PX}</ymax></bndbox></object>"
        for x, y in corners
    )
    return f"<annotation>{objects}</annotation>".encode()


def make_mirror(
    mirror: Path, *, trees: Sequence[tuple[int, int]], labelled: Sequence[tuple[int, int]]
) -> Demo:
    """Writes a wheel into a mirror, and describes it: one city, its west half and east half as areas."""
    members = {IMAGE: _png(draw_squares(draw_ground(SIDE_PX, SIDE_PX), trees)), LABELS: voc(labelled)}
    folder = mirror / MIRROR_FOLDER
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / FILE, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    side_m = SIDE_PX * PIXEL_M
    halves = {"w": (0.0, 0.0, side_m / 2, side_m), "e": (side_m / 2, 0.0, side_m, side_m)}
    scene = DemoScene(
        name="west",
        image=IMAGE,
        image_sha256=hashlib.sha256(members[IMAGE]).hexdigest(),
        labels=LABELS,
        labels_sha256=hashlib.sha256(members[LABELS]).hexdigest(),
        labels_format=LabelFormat.VOC,
        south_west=(528_000.0, 4_978_000.0),
        ground_resolution_m=PIXEL_M,
        area=tuple(
            DemoArea(level="half", code=code, name=code, bounds_m=bounds) for code, bounds in halves.items()
        ),
    )
    city = DemoCity(
        code="drawn",
        name="Drawn (demo)",
        crs="EPSG:32612",
        taken_at="2019-07-15T12:00:00",
        nominal="place and day",
        in_accuracy=True,
        scene=(scene,),
    )
    (mirror / DENSE).parent.mkdir(parents=True)
    dense = make_scene_file(
        mirror / DENSE, trees=trees, cars=CARS, size_px=(SIDE_PX, SIDE_PX), pixel_m=PIXEL_M
    )
    wheel = folder / FILE
    return Demo(
        wheel=DemoWheel(
            package="scenes",
            version="1.0",
            file=FILE,
            sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            bytes=wheel.stat().st_size,
        ),
        source=DemoSource(name="drawn", licence="CC0", attribution="A seeded generator"),
        city=(city,),
        city_scene=CityScene(
            code="dense",
            name="Dense (demo)",
            taken_at="2019-07-15T12:00:00",
            nominal="day",
            classes=("tree", "car"),
            source="drawn",
            licence="CC0",
            attribution="A seeded generator",
            mirror_path=DENSE,
            address=(mirror / "nowhere.tif").as_uri(),
            sha256=hashlib.sha256(dense.read_bytes()).hexdigest(),
            bytes=dense.stat().st_size,
            area=(
                OutlinedArea(
                    code="west",
                    name="West",
                    outline_px=((0, 0), (SIDE_PX / 2, 0), (SIDE_PX / 2, SIDE_PX), (0, SIDE_PX)),
                ),
            ),
        ),
    )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1)).save(written, "PNG")
    return written.getvalue()

"""Labelled folders → one ultralytics data set of windows at the model's ground resolution.

Training windows are drawn at random: anywhere on a scene (across the seams of the patches that it
was published in), at a jittered scale, turned and mirrored, in another light (``appearance``).
Pictures smaller than a window are laid side by side until it is full. Validation windows are laid
out regularly and left as they are.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detection.errors import LabelsUnusable
from detection.evaluation.labels import ClassNames, LabelledPicture, read_labelled_pictures
from detection.training.appearance import vary_appearance
from detection.training.recipe import Recipe, Selection, Source

Image.MAX_IMAGE_PIXELS = None  # orthophotos are large on purpose; only pictures named by a recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSet:
    """A data set on disk, ready for ultralytics.

    Attributes:
        data_file: the ``data.yaml``.
        pictures, objects: per training source, what there was to draw from (for the card).
    """

    data_file: Path
    pictures: dict[str, int]
    objects: dict[str, int]


#: A labelled picture and a region of it to draw from: x_min, y_min, x_max, y_max in pixels.
_Ground: TypeAlias = tuple[LabelledPicture, tuple[int, int, int, int]]


@dataclass(frozen=True, slots=True)
class _Cut:
    """Pixels and the boxes on them."""

    image: Image.Image
    boxes: NDArray[np.float64]
    classes: NDArray[np.int16]


def make_window_set(recipe: Recipe, data_folder: Path, out: Path, *, seed: int = 0) -> WindowSet:
    """Writes the windows of a recipe below ``out`` and a ``data.yaml`` beside them.

    The same recipe, data and seed give the same files; an existing set is not made again.

    Raises:
        LabelsUnusable: a source is missing or cannot be read.
    """
    done = out / "done.json"
    if done.is_file():
        counts = json.loads(done.read_text(encoding="utf-8"))
        return WindowSet(data_file=out / "data.yaml", **counts)
    pictures: dict[str, int] = {}
    objects: dict[str, int] = {}
    drawn: dict[int, _Drawn] = {}
    for place, source in enumerate(recipe.sources):
        labelled = read_source(source, data_folder, recipe.classes)
        for folder in _folders(out, source.role):
            folder.mkdir(parents=True, exist_ok=True)
        if source.role == "train":
            pictures[source.name] = len(labelled)
            objects[source.name] = _objects_inside(source, labelled)
            drawn[place] = _Drawn(recipe, place, _grounds(source, labelled), out, seed)
        else:
            for number, cut in enumerate(_regular_windows(recipe, source, labelled)):
                _write(cut, out, source.role, _window_name(place, number))
    _draw_all(drawn)
    _write_description(recipe, out)
    counts = {"pictures": pictures, "objects": objects}
    done.write_text(json.dumps(counts), encoding="utf-8")
    return WindowSet(data_file=out / "data.yaml", pictures=pictures, objects=objects)


def _window_name(source: int, number: int) -> str:
    return f"{source:02d}-{number:05d}"


def source_of(window: Path) -> int:
    """The place in the recipe of the source that a window was cut from."""
    return int(window.stem.partition("-")[0])


def read_source(source: Source, data_folder: Path, classes: Sequence[str]) -> list[LabelledPicture]:
    """The labelled pictures of a source, its selection applied; points get a box."""
    pictures = read_labelled_pictures(
        data_folder / source.pictures,
        data_folder / source.labels,
        source.format,
        ClassNames(wanted=tuple(classes), given=source.names, mapping=source.map),
    )
    if source.select is not None:
        is_selected = _is_selected(source.select, data_folder)
        pictures = [picture for picture in pictures if is_selected(picture.path.stem)]
    if not pictures:
        raise LabelsUnusable("no picture is selected", where=f"source {source.name}")
    pictures = _repaired(pictures, source, classes)
    half = source.point_box_m / source.ground_resolution_m / 2
    return [_with_extent(picture, half) if picture.points else picture for picture in pictures]


def _is_selected(select: Selection, data_folder: Path) -> Callable[[str], bool]:
    if not select.table:
        return lambda stem: stem.startswith(select.prefix)
    wanted = _selected_stems(select, data_folder)
    return lambda stem: stem in wanted and stem.startswith(select.prefix)


def _selected_stems(select: Selection, data_folder: Path) -> set[str]:
    with (data_folder / select.table).open(newline="", encoding="utf-8") as file:
        return {
            Path(row[select.stem]).stem
            for row in csv.DictReader(file)
            if all(row[column] in values for column, values in select.where.items())
        }


def _repaired(
    pictures: list[LabelledPicture], source: Source, classes: Sequence[str]
) -> list[LabelledPicture]:
    """The pictures with the source's repairs.

    Raises:
        LabelsUnusable: a repair names no picture, no box or no class.
    """
    by_name = {picture.path.stem: place for place, picture in enumerate(pictures)}
    pictures = list(pictures)
    for repair in source.repairs:
        where = f"source {source.name}, repair of {repair.picture} at {repair.at[0]:g}, {repair.at[1]:g}"
        if repair.label and repair.label not in classes:
            raise LabelsUnusable(f"“{repair.label}” is no class of the recipe", where=where)
        if repair.picture not in by_name:
            raise LabelsUnusable("there is no such picture", where=where)
        place = by_name[repair.picture]
        box = _box_at(pictures[place], repair.at)
        if box is None:
            raise LabelsUnusable("no box is there", where=where)
        pictures[place] = _relabelled(pictures[place], box, repair.label, classes)
    return pictures


def _box_at(picture: LabelledPicture, at: tuple[float, float]) -> int | None:
    low, high = picture.boxes_px[:, :2], picture.boxes_px[:, 2:]
    holding = np.flatnonzero(((low <= at) & (at <= high)).all(axis=1))
    if not len(holding):
        return None
    distance = np.linalg.norm((low + high)[holding] / 2 - at, axis=1)
    return int(holding[np.argmin(distance)])


def _relabelled(picture: LabelledPicture, box: int, label: str, classes: Sequence[str]) -> LabelledPicture:
    kept = np.ones(len(picture.class_index), bool)
    index = picture.class_index.copy()
    if label:
        index[box] = list(classes).index(label)
    else:
        kept[box] = False
    return replace(picture, boxes_px=picture.boxes_px[kept], class_index=index[kept])


def _with_extent(picture: LabelledPicture, half_px: float) -> LabelledPicture:
    return LabelledPicture(
        path=picture.path,
        boxes_px=picture.boxes_px + np.array([-half_px, -half_px, half_px, half_px]),
        class_index=picture.class_index,
    )


def _regions(source: Source, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    return list(source.regions) or [(0, 0, *size)]


def _objects_inside(source: Source, labelled: Sequence[LabelledPicture]) -> int:
    total = 0
    for picture in labelled:
        centre = (picture.boxes_px[:, :2] + picture.boxes_px[:, 2:]) / 2
        inside = np.zeros(len(centre), dtype=bool)
        for x_min, y_min, x_max, y_max in _regions(source, load_picture(picture.path).size):
            inside |= np.all((centre >= (x_min, y_min)) & (centre < (x_max, y_max)), axis=1)
        total += int(inside.sum())
    return total


@lru_cache(maxsize=256)
def load_picture(path: Path, colours: str = "natural") -> Image.Image:
    """A labelled picture as a network sees it.

    Raises:
        LabelsUnusable: near infrared is asked for, and it has no fourth band.
    """
    with Image.open(path) as image:
        if colours == "natural":
            return image.convert("RGB")
        # Pillow takes the fourth band for transparency, as most programs do.
        if image.mode != "RGBA":
            raise LabelsUnusable("it has no fourth band, of near infrared", where=str(path))
        red, green, _, near_infrared = image.split()
        return Image.merge("RGB", (near_infrared, red, green))


def _grounds(source: Source, labelled: Sequence[LabelledPicture]) -> list[_Ground]:
    return [
        (picture, region)
        for picture in labelled
        for region in _regions(source, load_picture(picture.path).size)
    ]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What the training windows of the source at ``place`` are drawn from."""

    recipe: Recipe
    place: int
    grounds: list[_Ground]
    out: Path
    seed: int

    @property
    def source(self) -> Source:
        return self.recipe.sources[self.place]

    def write(self, number: int) -> None:
        """Draws one window: the same number the same one, whoever draws it."""
        random = np.random.default_rng((self.seed, self.place, number))
        _write(self._window(random), self.out, self.source.role, _window_name(self.place, number))

    def _window(self, random: np.random.Generator) -> _Cut:
        """Pictures are drawn by their area, regions likewise."""
        areas = np.array([(r[2] - r[0]) * (r[3] - r[1]) for _, r in self.grounds], dtype=np.float64)
        low, high = np.log(self.recipe.scale_jitter)
        resampled = self.source.ground_resolution_m / self.recipe.ground_resolution_m
        zoom = resampled * np.exp(random.uniform(low, high))
        pieces = _collage(self.recipe, self.source, self.grounds, areas / areas.sum(), zoom, random)
        turned = _turned(pieces, int(random.integers(8)))
        return _Cut(vary_appearance(turned.image, random), turned.boxes, turned.classes)


#: What a drawing process knows, by place of the source.
_drawn: dict[int, _Drawn] = {}
#: Windows below which a second process is not worth its start.
_FEW_WINDOWS = 100


def _draw_all(drawn: dict[int, _Drawn]) -> None:
    """Writes all training windows, on all processors."""
    wanted = [(place, number) for place, one in drawn.items() for number in range(one.source.windows)]
    processes = min(os.cpu_count() or 1, len(wanted) // _FEW_WINDOWS)
    if processes < 2:
        for place, number in wanted:
            drawn[place].write(number)
        return
    # Not forked: whoever trains may hold torch's threads.
    with ProcessPoolExecutor(processes, get_context("spawn"), _know, (drawn,)) as pool:
        for _ in pool.map(_draw, wanted, chunksize=8):
            pass


def _know(drawn: dict[int, _Drawn]) -> None:
    _drawn.update(drawn)


def _draw(window: tuple[int, int]) -> None:
    place, number = window
    _drawn[place].write(number)


def _collage(
    recipe: Recipe,
    source: Source,
    grounds: Sequence[_Ground],
    shares: NDArray[np.float64],
    zoom: float,
    random: np.random.Generator,
) -> _Cut:
    """One window, filled with as many pieces as the pictures' size makes necessary."""
    side = recipe.window_px
    canvas = Image.new("RGB", (side, side), (114, 114, 114))
    boxes, classes = [], []
    y = 0
    while y < side:
        x, row_height = 0, side - y
        while x < side:
            picture, region = grounds[int(random.choice(len(grounds), p=shares))]
            width = min(side - x, int((region[2] - region[0]) * zoom))
            if x == 0:
                row_height = min(side - y, int((region[3] - region[1]) * zoom))
            height = min(row_height, int((region[3] - region[1]) * zoom))
            cut = _cut(picture, region, (width, height), zoom, recipe.smallest_cut_px, recipe.colours, random)
            if random.random() < source.turned:
                degrees = float(random.uniform(-60, 60))
                cut = _at_an_angle(cut, degrees, recipe.smallest_cut_px, source.roundness)
            canvas.paste(cut.image, (x, y))
            boxes.append(cut.boxes + np.array([x, y, x, y]))
            classes.append(cut.classes)
            x += width
        y += row_height
    return _Cut(canvas, np.concatenate(boxes), np.concatenate(classes))


def _cut(
    picture: LabelledPicture,
    region: tuple[int, int, int, int],
    size: tuple[int, int],
    zoom: float,
    smallest: float,
    colours: str,
    random: np.random.Generator,
) -> _Cut:
    """A piece of ``size`` pixels from a random place of the region, at the zoom."""
    span = np.array(size) / zoom
    free = np.maximum(np.array([region[2] - region[0], region[3] - region[1]]) - span, 0)
    corner = np.array(region[:2]) + random.uniform(0, 1, 2) * free
    return cut_window(picture, (float(corner[0]), float(corner[1])), size, zoom, smallest, colours)


def cut_window(
    picture: LabelledPicture,
    corner: tuple[float, float],
    size: tuple[int, int],
    zoom: float,
    smallest: float,
    colours: str = "natural",
) -> _Cut:
    """Pixels and boxes of a rectangle of the picture, resampled.

    Args:
        corner: x, y of its upper left corner in pixels of the picture.
        size: width and height of the result in pixels.
        zoom: pixels of the result for one of the picture.
        smallest: a box that the edge cuts and whose remainder is narrower than this (pixels of the
            result) is dropped: nobody could tell what it is.
        colours: as the recipe has them.
    """
    width, height = size
    x, y = corner
    frame = (x, y, x + width / zoom, y + height / zoom)
    source = load_picture(picture.path, colours)
    image = source.resize(
        size,
        Image.Resampling.BILINEAR,
        box=(frame[0], frame[1], min(frame[2], source.width), min(frame[3], source.height)),
    )
    boxes = (picture.boxes_px - np.array([x, y, x, y])) * zoom
    clipped = np.clip(boxes, 0, (width, height, width, height))
    extent = np.minimum(clipped[:, 2] - clipped[:, 0], clipped[:, 3] - clipped[:, 1])
    is_cut = np.any(np.abs(clipped - boxes) > 0.5, axis=1)
    kept = (extent > 0) & (~is_cut | (extent >= smallest))
    return _Cut(image, clipped[kept], picture.class_index[kept])


def _at_an_angle(cut: _Cut, degrees: float, smallest: float, roundness: float = 0.5) -> _Cut:
    """The piece turned about its middle, counter-clockwise; what turns in from outside is grey.

    The box of a turned object lies between those of the rectangle and of the ellipse that its own box holds.
    """
    width, height = cut.image.size
    image = cut.image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(114, 114, 114))
    angle = np.deg2rad(degrees)
    cosine, sine = abs(np.cos(angle)), abs(np.sin(angle))
    middle = (cut.boxes[:, :2] + cut.boxes[:, 2:]) / 2 - (width / 2, height / 2)
    # y points down: counter-clockwise for the eye.
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = middle @ turn + (width / 2, height / 2)
    a, b = ((cut.boxes[:, 2:] - cut.boxes[:, :2]) / 2).T
    rectangle = np.stack([a * cosine + b * sine, a * sine + b * cosine], axis=1)
    ellipse = np.stack([np.hypot(a * cosine, b * sine), np.hypot(a * sine, b * cosine)], axis=1)
    half = (1 - roundness) * rectangle + roundness * ellipse
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    clipped = np.clip(boxes, 0, (width, height, width, height))
    extent = np.minimum(clipped[:, 2] - clipped[:, 0], clipped[:, 3] - clipped[:, 1])
    kept = extent >= smallest
    return _Cut(image, clipped[kept], cut.classes[kept])


def _turned(cut: _Cut, which: int) -> _Cut:
    """One of the eight ways to lay a square: aerial imagery has no up."""
    side = cut.image.width
    image, boxes = cut.image, cut.boxes
    if which & 1:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = np.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], axis=1)
    if which & 2:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        boxes = np.stack([boxes[:, 0], side - boxes[:, 3], boxes[:, 2], side - boxes[:, 1]], axis=1)
    if which & 4:
        image = image.transpose(Image.Transpose.TRANSPOSE)
        boxes = boxes[:, [1, 0, 3, 2]]
    return _Cut(image, boxes, cut.classes)


def _regular_windows(recipe: Recipe, source: Source, labelled: Sequence[LabelledPicture]) -> Iterator[_Cut]:
    """Windows side by side over each region, the last ones pushed back inside."""
    zoom = source.ground_resolution_m / recipe.ground_resolution_m
    span = recipe.window_px / zoom
    for picture in labelled:
        for x_min, y_min, x_max, y_max in _regions(source, load_picture(picture.path).size):
            for y in _starts(y_min, y_max, span):
                for x in _starts(x_min, x_max, span):
                    size = (
                        int(min(span, x_max - x_min) * zoom),
                        int(min(span, y_max - y_min) * zoom),
                    )
                    cut = cut_window(picture, (x, y), size, zoom, recipe.smallest_cut_px, recipe.colours)
                    canvas = Image.new("RGB", (recipe.window_px,) * 2, (114, 114, 114))
                    canvas.paste(cut.image, (0, 0))
                    yield _Cut(canvas, cut.boxes, cut.classes)


def _starts(low: float, high: float, span: float) -> list[float]:
    count = max(1, int(np.ceil((high - low) / span)))
    last = max(low, high - span)
    return [float(start) for start in np.linspace(low, last, count)]


def _folders(out: Path, role: str) -> tuple[Path, Path]:
    """Where pictures and labels go."""
    return out / role / "images", out / role / "labels"


def _write(cut: _Cut, out: Path, role: str, name: str) -> None:
    images, labels = _folders(out, role)
    cut.image.save(images / f"{name}.jpg", quality=95, subsampling=0)
    width, height = cut.image.size
    centre = (cut.boxes[:, :2] + cut.boxes[:, 2:]) / 2 / (width, height)
    extent = (cut.boxes[:, 2:] - cut.boxes[:, :2]) / (width, height)
    lines = [
        f"{index} " + " ".join(f"{value:.6f}" for value in (*middle, *span))
        for index, middle, span in zip(cut.classes, centre, extent, strict=True)
    ]
    (labels / f"{name}.txt").write_text("\n".join(lines) + "\n" if lines else "", encoding="utf-8")


def _write_description(recipe: Recipe, out: Path) -> None:
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(recipe.classes))
    (out / "data.yaml").write_text(
        f"path: {json.dumps(str(out.resolve()))}\ntrain: train/images\nval: validate/images\nnames:\n{names}",
        encoding="utf-8",
    )

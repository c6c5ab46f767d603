"""Labelled folders: pictures and, beside them, what people say is on them.

Seven forms are read (``LabelFormat``); all become boxes in pixels of the picture. Class names come
from ``classes.txt`` or ``data.yaml`` beside the labels, else from the caller, and may be mapped onto
the classes of a model (``vehicle=car``). Not here: what is done with them (``training``,
``matching``), and georeferenced truth of a whole scene (``truth``).
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from detection.errors import LabelsUnusable

Boxes: TypeAlias = NDArray[np.float64]
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


class LabelFormat(StrEnum):
    """Forms of labels, as ``--format`` names them."""

    YOLO = "yolo"  # NAME.txt: class cx cy width height, shares of the picture
    VOC = "voc"  # NAME.xml: Pascal VOC, pixels
    XYXY = "xyxy"  # NAME.txt: x_min y_min x_max y_max [class], pixels
    COCO = "coco"  # one JSON
    POINTS = "points"  # one csv (image,x,y[,label]) or NAME.csv / NAME.txt with x,y
    CSV = "csv"  # one csv: image,xmin,ymin,xmax,ymax,label
    GEOJSON = "geojson"  # NAME.geojson in the CRS of the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPicture:
    """One picture and its objects.

    Attributes:
        boxes_px: (n, 4) float64; x_min, y_min, x_max, y_max, pixels of the picture, y down. A point
            has a box without extent.
        class_index: (n,) int16 into the classes that the labels were read for.
        points: whether the labels are points, which have a place and no size.
    """

    path: Path
    boxes_px: Boxes
    class_index: NDArray[np.int16]
    points: bool = False

    def __post_init__(self) -> None:
        if self.boxes_px.shape != (len(self.class_index), 4):
            raise LabelsUnusable(
                f"boxes of shape {self.boxes_px.shape} for {len(self.class_index)} classes",
                where=str(self.path),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassNames:
    """How the names in labels become classes of a model.

    Attributes:
        wanted: the model's classes, in its order.
        given: names of the numbers in labels, where no file beside them says so.
        mapping: name in the labels → class wanted; to an empty name: left out.
    """

    wanted: tuple[str, ...]
    given: tuple[str, ...] = ()
    mapping: Mapping[str, str] | None = None

    def index_of(self, name: str) -> int | None:
        """Place of a label's name among the wanted classes; None for a class not wanted."""
        mapped = {key.casefold(): value for key, value in (self.mapping or {}).items()}
        target = mapped.get(name.casefold(), name).casefold()
        folded = [wanted.casefold() for wanted in self.wanted]
        return folded.index(target) if target in folded else None


_Row: TypeAlias = tuple[tuple[float, float, float, float], str]


def read_labelled_pictures(
    pictures: Path, labels: Path, form: LabelFormat, names: ClassNames
) -> list[LabelledPicture]:
    """All pictures of a folder with their labels, in order of file name.

    A picture without labels is one without objects (an empty label file and a missing row are the
    same), except where labels lie one file a picture: there a missing file is an error, since it is
    more often a wrong folder than an empty picture.

    Args:
        pictures: a folder of pictures, or one picture.
        labels: the folder of label files, or the one file of coco, csv and points.

    Raises:
        LabelsUnusable: no picture, labels that cannot be read or whose classes nobody wants.
    """
    paths = _pictures_in(pictures)
    read = _READERS[form](labels, paths, _names_of_numbers(labels, names))
    found: set[str] = set()
    result = []
    for path in paths:
        rows = read(path)
        found.update(name for _, name in rows)
        result.append(_labelled(path, rows, names, points=form is LabelFormat.POINTS))
    if found and not any(len(picture.boxes_px) for picture in result):
        raise LabelsUnusable(
            f"no label is of class {', '.join(names.wanted)}; they name {', '.join(sorted(found))}",
            where=str(labels),
            do=f"Say which they are, for example --map {sorted(found)[0]}={names.wanted[0]}.",
        )
    return result


def _pictures_in(pictures: Path) -> list[Path]:
    if pictures.is_file():
        return [pictures]
    paths = sorted(
        path
        for path in (pictures.iterdir() if pictures.is_dir() else ())
        if path.suffix.lower() in PICTURE_SUFFIXES
    )
    if not paths:
        raise LabelsUnusable(
            "no pictures found",
            where=str(pictures),
            do=f"Expected files that end in {', '.join(PICTURE_SUFFIXES)}.",
        )
    return paths


def _labelled(path: Path, rows: Sequence[_Row], names: ClassNames, *, points: bool) -> LabelledPicture:
    kept = [(box, index) for box, name in rows if (index := names.index_of(name)) is not None]
    return LabelledPicture(
        path=path,
        boxes_px=np.array([box for box, _ in kept], dtype=np.float64).reshape(-1, 4),
        class_index=np.array([index for _, index in kept], dtype=np.int16),
        points=points,
    )


def _names_of_numbers(labels: Path, names: ClassNames) -> tuple[str, ...]:
    """Names of class numbers: classes.txt, data.yaml (beside or one above), the caller, the model."""
    folder = labels if labels.is_dir() else labels.parent
    for place in (folder, folder.parent):
        listed = place / "classes.txt"
        if listed.is_file():
            lines = _text_of(listed).splitlines()
            return tuple(line.strip() for line in lines if line.strip())
        described = place / "data.yaml"
        if described.is_file():
            return _names_in_yaml(described)
    return names.given or names.wanted


def _names_in_yaml(path: Path) -> tuple[str, ...]:
    """The ``names`` of a data set description: a list or a numbered mapping, in one line or several.

    These are the only forms that label programs write; a YAML library for them alone is not worth
    a dependency of the service.
    """
    text = _text_of(path)
    found = re.search(r"^names:[ \t]*(.*(?:\n(?:[ \t]+|-).*)*)", text, re.MULTILINE)
    body = re.sub(r"(?m)\s#.*$", "", found.group(1)).strip() if found else ""
    entries = body.strip("[]{}").split(",") if body[:1] in ("[", "{") else body.splitlines()
    names = [re.sub(r"^(-\s+|\d+\s*:\s*)", "", entry.strip()).strip().strip("'\"") for entry in entries]
    if not any(names):
        raise LabelsUnusable("no list of class names", where=str(path), do="names: [tree, bush]")
    return tuple(name for name in names if name)


_Reader: TypeAlias = Callable[[Path], list[_Row]]


def _file_of(labels: Path, picture: Path, *suffixes: str) -> Path:
    for suffix in suffixes:
        path = labels / f"{picture.stem}{suffix}"
        if path.is_file():
            return path
    raise LabelsUnusable(
        f"no labels for {picture.name}",
        where=str(labels),
        do=f"Expected {picture.stem}{suffixes[0]}; a picture without objects has an empty file.",
    )


def _number_name(number: str, numbered: Sequence[str], where: Path) -> str:
    if not number.lstrip("-").isdigit():
        return number
    if not 0 <= int(number) < len(numbered):
        raise LabelsUnusable(
            f"class number {number}, but only {len(numbered)} names are known", where=str(where)
        )
    return numbered[int(number)]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsUnusable("not text in UTF-8", where=str(path)) from error


def _text_rows(path: Path, least: int) -> list[list[str]]:
    rows = [line.replace(",", " ").split() for line in _text_of(path).splitlines()]
    for number, row in enumerate(rows, start=1):
        if row and len(row) < least:
            raise LabelsUnusable(
                f"line {number} has {len(row)} values, expected at least {least}", where=str(path)
            )
    return [row for row in rows if row]


def _floats(values: Iterable[Any], where: Path) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise LabelsUnusable(f"not a number: {error}", where=str(where)) from error
    if not np.isfinite(numbers).all():
        raise LabelsUnusable("a coordinate is not finite", where=str(where))
    return numbers


def _size_of(picture: Path) -> tuple[int, int]:
    try:
        with Image.open(picture) as image:
            return image.size
    except UnidentifiedImageError as error:
        raise LabelsUnusable("not a picture", where=str(picture)) from error


def _yolo(labels: Path, _: Sequence[Path], numbered: Sequence[str]) -> _Reader:
    def read(picture: Path) -> list[_Row]:
        path = _file_of(labels, picture, ".txt")
        width, height = _size_of(picture)
        rows: list[_Row] = []
        for row in _text_rows(path, 5):
            values = np.array(_floats(row[1:], path))
            if len(values) % 2:
                raise LabelsUnusable(
                    f"a row has {len(values)} numbers after its class: neither a box nor a polygon",
                    where=str(path),
                    do="Labels are wanted, class x y width height; predictions have a score behind.",
                )
            if len(values) == 4:
                x, y, w, h = values
                corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            else:  # a polygon, as segmentation exports have it: its bounding box
                corners = np.array(
                    [values[::2].min(), values[1::2].min(), values[::2].max(), values[1::2].max()]
                )
            x_min, y_min, x_max, y_max = corners * (width, height, width, height)
            rows.append(((x_min, y_min, x_max, y_max), _number_name(row[0], numbered, path)))
        return rows

    return read


def _voc(labels: Path, _: Sequence[Path], __: Sequence[str]) -> _Reader:
    def read(picture: Path) -> list[_Row]:
        path = labels if labels.is_file() else _file_of(labels, picture, ".xml")
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise LabelsUnusable(f"not XML: {error}", where=str(path)) from error
        rows: list[_Row] = []
        for item in root.iter("object"):
            box = [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            x_min, y_min, x_max, y_max = _floats(box, path)
            rows.append(((x_min, y_min, x_max, y_max), item.findtext("name") or ""))
        return rows

    return read


def _xyxy(labels: Path, _: Sequence[Path], numbered: Sequence[str]) -> _Reader:
    def read(picture: Path) -> list[_Row]:
        path = _file_of(labels, picture, ".txt")
        rows: list[_Row] = []
        for row in _text_rows(path, 4):
            x_min, y_min, x_max, y_max = _floats(row[:4], path)
            name = _number_name(row[4], numbered, path) if len(row) > 4 else numbered[0]
            rows.append(((x_min, y_min, x_max, y_max), name))
        return rows

    return read


def _by_picture(rows: Iterable[tuple[str, _Row]]) -> _Reader:
    """Rows of one file for all pictures; names with or without folder and suffix are understood."""
    table: dict[str, list[_Row]] = {}
    for name, row in rows:
        table.setdefault(Path(name).stem, []).append(row)
    return lambda picture: table.get(picture.stem, [])


def _one_file(labels: Path, suffix: str) -> Path:
    if labels.is_file():
        return labels
    found = sorted(labels.glob(f"*{suffix}"))
    if len(found) != 1:
        raise LabelsUnusable(
            f"{len(found)} files end in {suffix}, expected one", where=str(labels), do="Name the file."
        )
    return found[0]


def _coco(labels: Path, _: Sequence[Path], __: Sequence[str]) -> _Reader:
    path = _one_file(labels, ".json")
    try:
        document = json.loads(_text_of(path))
        images = {image["id"]: str(image["file_name"]) for image in document["images"]}
        classes = {item["id"]: str(item["name"]) for item in document["categories"]}
        rows: list[tuple[str, _Row]] = []
        for item in document["annotations"]:
            x, y, w, h = _floats(item["bbox"], path)
            box = (x, y, x + w, y + h)
            rows.append((images[item["image_id"]], (box, classes[item["category_id"]])))
    except (ValueError, KeyError, TypeError) as error:
        raise LabelsUnusable(f"not COCO annotations: {error!r}", where=str(path)) from error
    return _by_picture(rows)


def _table(path: Path, columns: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(_text_of(path), newline=""))
    header = {name.strip().casefold(): name for name in reader.fieldnames or ()}
    chosen = {
        key: next((header[name] for name in known if name in header), None) for key, known in columns.items()
    }
    missing = [key for key, name in chosen.items() if name is None and key != "label"]
    if missing:
        raise LabelsUnusable(
            f"no column {', '.join(missing)}; it has {', '.join(header) or 'none'}", where=str(path)
        )
    return [{key: (row[name] or "") if name else "" for key, name in chosen.items()} for row in reader]


_IMAGE = ("image", "image_path", "filename", "file_name", "file")
_LABEL = ("label", "class", "name")


def _csv(labels: Path, _: Sequence[Path], numbered: Sequence[str]) -> _Reader:
    path = _one_file(labels, ".csv")
    sides = ("xmin", "ymin", "xmax", "ymax")
    table = _table(path, {"image": _IMAGE, **{side: (side,) for side in sides}, "label": _LABEL})
    rows: list[tuple[str, _Row]] = []
    for row in table:
        if not any(row[side] for side in sides):
            continue  # the form's way to list a picture without objects
        x_min, y_min, x_max, y_max = _floats((row[side] for side in sides), path)
        name = _number_name(row["label"] or "0", numbered, path)
        rows.append((row["image"], ((x_min, y_min, x_max, y_max), name)))
    return _by_picture(rows)


def _points(labels: Path, pictures: Sequence[Path], numbered: Sequence[str]) -> _Reader:
    if labels.is_dir() and any(
        (labels / f"{p.stem}{s}").is_file() for p in pictures for s in (".csv", ".txt")
    ):
        return _points_per_picture(labels, numbered)
    path = _one_file(labels, ".csv")
    rows: list[tuple[str, _Row]] = []
    for row in _table(path, {"image": _IMAGE, "x": ("x",), "y": ("y",), "label": _LABEL}):
        x, y = _floats((row["x"], row["y"]), path)
        rows.append((row["image"], ((x, y, x, y), _number_name(row["label"] or "0", numbered, path))))
    return _by_picture(rows)


def _points_per_picture(labels: Path, numbered: Sequence[str]) -> _Reader:
    def read(picture: Path) -> list[_Row]:
        path = _file_of(labels, picture, ".csv", ".txt")
        rows: list[_Row] = []
        for number, row in enumerate(_text_rows(path, 2)):
            if number == 0 and row[0].casefold() == "x":
                continue
            x, y = _floats(row[:2], path)
            name = _number_name(row[2], numbered, path) if len(row) > 2 else numbered[0]
            rows.append(((x, y, x, y), name))
        return rows

    return read


def _geojson(labels: Path, _: Sequence[Path], numbered: Sequence[str]) -> _Reader:
    from detection.evaluation.truth import boxes_on_picture

    def read(picture: Path) -> list[_Row]:
        path = labels if labels.is_file() else _file_of(labels, picture, ".geojson", ".json")
        return boxes_on_picture(path, picture, default_name=numbered[0])

    return read


_READERS: Mapping[LabelFormat, Callable[[Path, Sequence[Path], Sequence[str]], _Reader]] = {
    LabelFormat.YOLO: _yolo,
    LabelFormat.VOC: _voc,
    LabelFormat.XYXY: _xyxy,
    LabelFormat.COCO: _coco,
    LabelFormat.POINTS: _points,
    LabelFormat.CSV: _csv,
    LabelFormat.GEOJSON: _geojson,
}

"""Labels: seven forms say the same, and unreadable ones say why."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.errors import LabelsUnusable
from detection.evaluation.labels import (
    ClassNames,
    LabelFormat,
    LabelledPicture,
    read_labelled_pictures,
)

TREES = ClassNames(wanted=("tree",))
BOX = (10.0, 20.0, 50.0, 80.0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (200, 100)).save(folder / f"{name}.png")
    return folder


def _write(folder: Path, files: dict[str, str]) -> Path:
    labels = folder.parent / "labels"
    labels.mkdir(exist_ok=True)
    for name, text in files.items():
        (labels / name).write_text(text, encoding="utf-8")
    return labels


VOC = """<annotation><object><name>Tree</name><bndbox><xmin>10</xmin><ymin>20</ymin>
<xmax>50</xmax><ymax>80</ymax></bndbox></object></annotation>"""
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "tree"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [10, 20, 40, 60]}],
    }
)


@pytest.mark.parametrize(
    ("form", "files"),
    [
        (LabelFormat.YOLO, {"a.txt": "0 0.15 0.5 0.2 0.6\n", "b.txt": ""}),
        (LabelFormat.VOC, {"a.xml": VOC, "b.xml": "<annotation/>"}),
        (LabelFormat.XYXY, {"a.txt": "10 20 50 80\n", "b.txt": ""}),
        (LabelFormat.COCO, {"all.json": COCO}),
        (LabelFormat.CSV, {"all.csv": "image_path,xmin,ymin,xmax,ymax,label\na.png,10,20,50,80,Tree\n"}),
    ],
)
def test_every_form_gives_the_same_box(pictures: Path, form: LabelFormat, files: dict[str, str]) -> None:
    first, second = read_labelled_pictures(pictures, _write(pictures, files), form, TREES)
    assert first.path.name == "a.png"
    np.testing.assert_allclose(first.boxes_px, [BOX])
    assert first.class_index.tolist() == [0]
    assert second.boxes_px.shape == (0, 4)


@pytest.mark.parametrize(
    "files",
    [{"all.csv": "image,x,y\na.png,30,50\n"}, {"a.csv": "x,y\n30,50\n", "b.csv": ""}],
)
def test_points_come_in_one_file_or_one_a_picture(pictures: Path, files: dict[str, str]) -> None:
    first, second = read_labelled_pictures(pictures, _write(pictures, files), LabelFormat.POINTS, TREES)
    assert first.points
    np.testing.assert_allclose(first.boxes_px, [[30, 50, 30, 50]])
    assert len(second.boxes_px) == 0


def test_names_beside_the_labels_outweigh_the_callers(pictures: Path) -> None:
    labels = _write(pictures, {"a.txt": "1 0.5 0.5 0.1 0.1", "b.txt": "", "classes.txt": "bush\ntree\n"})
    names = ClassNames(wanted=("tree",), given=("tree", "bush"))
    first, _ = read_labelled_pictures(pictures, labels, LabelFormat.YOLO, names)
    assert len(first.boxes_px) == 1


@pytest.mark.parametrize(
    "text",
    [
        "names:\n  0: car\n  1: tree\nnc: 2\n",
        "nc: 2\nnames: ['car', \"tree\"]\n",
        "names:\n- car\n- tree  # a comment\ntrain: images\n",
        "names: {0: car, 1: tree}\n",
    ],
)
def test_data_yaml_names_the_numbers(pictures: Path, text: str) -> None:
    labels = _write(pictures, {"a.txt": "0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1", "b.txt": ""})
    (labels / "data.yaml").write_text(text)
    first, _ = read_labelled_pictures(pictures, labels, LabelFormat.YOLO, TREES)
    np.testing.assert_allclose(first.boxes_px, [[30, 15, 50, 25]])


def test_a_data_yaml_without_names_is_refused(pictures: Path) -> None:
    labels = _write(pictures, {"a.txt": "", "b.txt": "", "data.yaml": "nc: 1\n"})
    with pytest.raises(LabelsUnusable, match="no list of class names"):
        read_labelled_pictures(pictures, labels, LabelFormat.YOLO, TREES)


def test_a_label_may_be_mapped_or_left_out(pictures: Path) -> None:
    text = "10 20 50 80 vehicle\n60 20 90 80 bush\n0 0 5 5 van\n"
    names = ClassNames(wanted=("car",), mapping={"vehicle": "car", "bush": ""})
    labels = _write(pictures, {"a.txt": text, "b.txt": ""})
    first, _ = read_labelled_pictures(pictures, labels, LabelFormat.XYXY, names)
    np.testing.assert_allclose(first.boxes_px, [BOX])


def test_labels_of_foreign_classes_are_refused_with_the_way_out(pictures: Path) -> None:
    labels = _write(pictures, {"a.txt": "10 20 50 80 shrub", "b.txt": ""})
    with pytest.raises(LabelsUnusable, match="--map shrub=tree"):
        read_labelled_pictures(pictures, labels, LabelFormat.XYXY, TREES)


@pytest.mark.parametrize(
    ("form", "files", "message"),
    [
        (LabelFormat.XYXY, {"a.txt": "1 2 3"}, "line 1 has 3 values"),
        (LabelFormat.XYXY, {"b.txt": ""}, "no labels for a.png"),
        (LabelFormat.YOLO, {"a.txt": "0 x 0 0 0"}, "not a number"),
        (LabelFormat.YOLO, {"a.txt": "3 0 0 0 0"}, "class number 3"),
        (LabelFormat.YOLO, {"a.txt": "0 nan 0 0 0"}, "not finite"),
        (LabelFormat.YOLO, {"a.txt": "0 .5 .5 .1 .1 .9"}, "neither a box nor a polygon"),
        (LabelFormat.VOC, {"a.xml": "<annotation>"}, "not XML"),
        (LabelFormat.COCO, {"all.json": "[]"}, "not COCO"),
        (LabelFormat.CSV, {"all.csv": "image,xmin\n"}, "no column ymin"),
        (LabelFormat.CSV, {}, "0 files end in .csv"),
    ],
)
def test_unreadable_labels_say_what_is_wrong(
    pictures: Path, form: LabelFormat, files: dict[str, str], message: str
) -> None:
    with pytest.raises(LabelsUnusable, match=message):
        read_labelled_pictures(pictures, _write(pictures, files), form, TREES)


@pytest.mark.parametrize(
    ("form", "name"),
    [(LabelFormat.YOLO, "a.txt"), (LabelFormat.CSV, "all.csv"), (LabelFormat.COCO, "all.json")],
)
def test_labels_that_are_no_text_are_refused(pictures: Path, form: LabelFormat, name: str) -> None:
    labels = _write(pictures, {})
    (labels / name).write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(LabelsUnusable, match="not text in UTF-8"):
        read_labelled_pictures(pictures, labels, form, TREES)


def test_a_text_named_as_a_picture_is_refused(pictures: Path) -> None:
    (pictures / "a.png").write_text("no picture", encoding="utf-8")
    with pytest.raises(LabelsUnusable, match="not a picture"):
        read_labelled_pictures(pictures, _write(pictures, {"a.txt": ""}), LabelFormat.YOLO, TREES)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsUnusable, match="no pictures"):
        read_labelled_pictures(tmp_path, tmp_path, LabelFormat.XYXY, TREES)


def test_boxes_and_classes_must_agree() -> None:
    with pytest.raises(LabelsUnusable, match="shape"):
        LabelledPicture(
            path=Path("a.png"), boxes_px=np.zeros((2, 4)), class_index=np.zeros(1, dtype=np.int16)
        )

"""Windows cut for training: where they lie, what is on them, what is left off."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from detection.errors import LabelsUnusable
from detection.evaluation.labels import LabelFormat, LabelledPicture
from detection.training.appearance import vary_appearance
from detection.training.fit import labelled_classes
from detection.training.recipe import Recipe, Schedule, Selection, Source
from detection.training.windows import _at_an_angle, cut_window, make_window_set, read_source
from tests.support.labelled import write_labelled_folder


def _source(folder: Path, **changes: object) -> Source:
    fields: dict[str, object] = {
        "name": "drawn",
        "role": "train",
        "pictures": str(folder / "images"),
        "labels": str(folder / "labels"),
        "format": LabelFormat.XYXY,
        "ground_resolution_m": 0.1,
        "windows": 3,
    }
    return Source.model_validate(fields | changes)


def _recipe(*sources: Source, **changes: object) -> Recipe:
    fields: dict[str, object] = {
        "name": "drawn",
        "version": "1",
        "description": "discs",
        "licence": "none",
        "classes": ("tree",),
        "ground_resolution_m": 0.1,
        "range_m": (0.05, 0.2),
        "window_px": 128,
        "margin_px": 16,
        "weights": "none.pt",
        "weights_sha256": "0" * 64,
        "schedule": Schedule(epochs=1),
        "sources": sources,
    }
    return Recipe.model_validate(fields | changes)


def _picture(tmp_path: Path, boxes: list[list[float]], side: int = 200) -> LabelledPicture:
    path = tmp_path / "picture.png"
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    for x_min, y_min, x_max, y_max in np.array(boxes, dtype=int).tolist():
        pixels[y_min:y_max, x_min:x_max] = 255
    Image.fromarray(pixels).save(path)
    return LabelledPicture(
        path=path,
        boxes_px=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        class_index=np.zeros(len(boxes), dtype=np.int16),
    )


def _labels(out: Path, role: str) -> list[np.ndarray]:
    return [
        np.array([line.split() for line in path.read_text().splitlines()], dtype=float).reshape(-1, 5)
        for path in sorted((out / role / "labels").glob("*.txt"))
    ]


def test_boxes_go_with_their_pixels_through_zoom(tmp_path: Path) -> None:
    picture = _picture(tmp_path, [[60, 70, 100, 90]])
    cut = cut_window(picture, (50.0, 50.0), (100, 100), 2.0, 8.0)
    np.testing.assert_allclose(cut.boxes, [[20, 40, 100, 80]])
    pixels = np.asarray(cut.image)
    assert pixels[60, 60].tolist() == [255, 255, 255]
    assert pixels[60, 10].tolist() == [0, 0, 0]


def test_what_the_edge_leaves_of_a_crown_is_dropped_when_too_narrow(tmp_path: Path) -> None:
    picture = _picture(tmp_path, [[44, 60, 57, 80], [40, 100, 59, 120], [70, 70, 74, 74]])
    cut = cut_window(picture, (50.0, 50.0), (100, 100), 1.0, 8.0)
    # 7 px remain of the first; 9 of the second; the third is small but whole.
    np.testing.assert_allclose(cut.boxes, [[0, 50, 9, 70], [20, 20, 24, 24]])


def test_the_set_is_what_ultralytics_reads(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path / "data", 2)
    recipe = _recipe(_source(tmp_path / "data"), _source(tmp_path / "data", role="validate"))
    made = make_window_set(recipe, tmp_path, tmp_path / "out")
    assert made.data_file.read_text().endswith("names:\n  0: tree\n")
    assert (made.pictures, made.objects) == ({"drawn": 2}, {"drawn": 12})
    assert len(_labels(tmp_path / "out", "train")) == 3
    for table in _labels(tmp_path / "out", "train"):
        assert ((table[:, 1:] >= 0) & (table[:, 1:] <= 1)).all()


def test_labels_lie_on_the_crowns_after_turns_and_collage(tmp_path: Path) -> None:
    # Pictures smaller than a window, so that it is filled with several; dark discs on light ground.
    write_labelled_folder(tmp_path / "data", 3, side_px=90)
    recipe = _recipe(
        _source(tmp_path / "data", windows=12),
        _source(tmp_path / "data", role="validate"),
        scale_jitter=(0.8, 1.2),
    )
    make_window_set(recipe, tmp_path, tmp_path / "out")
    contrast = []
    paths = sorted((tmp_path / "out" / "train" / "images").glob("*.jpg"))
    for path, table in zip(paths, _labels(tmp_path / "out", "train"), strict=True):
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"), dtype=float)
        for _, x, y, w, h in table:
            if min(w, h) * 128 > 25:
                contrast.append(grey[int(y * 127), int(x * 127)] < grey.mean())
    assert len(contrast) > 30
    assert np.mean(contrast) > 0.9


def test_validation_windows_show_every_object(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path / "data", 1)
    recipe = _recipe(_source(tmp_path / "data"), _source(tmp_path / "data", role="validate"))
    make_window_set(recipe, tmp_path, tmp_path / "out")
    tables = _labels(tmp_path / "out", "validate")
    assert len(tables) == 4
    assert sum(len(table) for table in tables) >= 6


def test_windows_stay_inside_their_region(tmp_path: Path) -> None:
    picture = tmp_path / "images" / "a.png"
    picture.parent.mkdir()
    pixels = np.zeros((300, 300, 3), dtype=np.uint8)
    pixels[:, 150:] = 255
    Image.fromarray(pixels).save(picture)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("")
    recipe = _recipe(
        _source(tmp_path, windows=0),
        _source(tmp_path, role="validate", regions=[(0, 0, 150, 300)]),
    )
    make_window_set(recipe, tmp_path, tmp_path / "out")
    for path in (tmp_path / "out" / "validate" / "images").iterdir():
        with Image.open(path) as image:
            assert np.asarray(image).max() < 40


def test_the_same_seed_makes_the_same_windows(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path / "data", 2)
    recipe = _recipe(_source(tmp_path / "data"), _source(tmp_path / "data", role="validate"))
    for name in ("one", "two"):
        make_window_set(recipe, tmp_path, tmp_path / name, seed=7)
    for path in (tmp_path / "one" / "train" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "train" / "images" / path.name).read_bytes()


def test_a_selection_takes_the_rows_that_have_the_values(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path, 3)
    (tmp_path / "plots.csv").write_text("plot,site\n00,A\n01,B\n02,A\n")
    select = Selection(table=str(tmp_path / "plots.csv"), stem="plot", where={"site": ("A",)})
    found = read_source(_source(tmp_path, select=select), tmp_path, ("tree",))
    assert [picture.path.stem for picture in found] == ["00", "02"]
    nobody = select.model_copy(update={"where": {"site": ("C",)}})
    with pytest.raises(LabelsUnusable, match="no picture is selected"):
        read_source(_source(tmp_path, select=nobody), tmp_path, ("tree",))


def test_points_get_a_box_of_the_size_given(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path, 1)
    (tmp_path / "points.csv").write_text("image,x,y\n00.png,100,50\n")
    source = _source(
        tmp_path, labels=str(tmp_path / "points.csv"), format=LabelFormat.POINTS, point_box_m=4.0
    )
    (picture,) = read_source(source, tmp_path, ("tree",))
    assert picture.boxes_px.tolist() == [[80, 30, 120, 70]]
    assert not picture.points


def test_appearance_changes_light_and_not_place() -> None:
    pixels = np.full((64, 64, 3), 60, dtype=np.uint8)
    pixels[20:40, 30:50] = 200
    window = Image.fromarray(pixels)
    random = np.random.default_rng(1)
    changed = [np.asarray(vary_appearance(window, random), dtype=float) for _ in range(20)]
    assert len({array.tobytes() for array in changed}) == 20
    for array in changed:
        assert array.shape == (64, 64, 3)
        assert array[25:35, 35:45].mean() > array[45:60, 5:25].mean() + 20


def test_a_repair_gives_a_label_another_class_or_takes_it_off(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path / "data", 2)
    (tmp_path / "data/labels/00.txt").write_text("10 10 40 40\n30 30 80 80\n100 100 140 140")
    repairs = [
        {"picture": "00", "at": [35, 35], "label": "shrub"},
        {"picture": "00", "at": [120, 120], "label": ""},
    ]
    first, _ = read_source(_source(tmp_path / "data", repairs=repairs), tmp_path, ("tree", "shrub"))
    # Two boxes hold the place: the one whose middle is nearer is meant.
    assert first.class_index.tolist() == [1, 0]
    for wrong in (
        {"picture": "07", "at": [35, 35], "label": "tree"},
        {"picture": "00", "at": [200, 35], "label": "tree"},
        {"picture": "00", "at": [35, 35], "label": "bush"},
    ):
        with pytest.raises(LabelsUnusable, match="repair of"):
            read_source(_source(tmp_path / "data", repairs=[wrong]), tmp_path, ("tree", "shrub"))


def test_pictures_are_selected_by_the_beginning_of_their_name(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path / "data", 12)
    found = read_source(_source(tmp_path / "data", select={"prefix": "1"}), tmp_path, ("tree",))
    assert [picture.path.stem for picture in found] == ["10", "11"]


def test_a_turned_box_goes_with_its_thing(tmp_path: Path) -> None:
    picture = _picture(tmp_path, [[120, 90, 180, 110]])
    cut = cut_window(picture, (0.0, 0.0), (200, 200), 1.0, 8.0)
    turned = _at_an_angle(cut, 30.0, 8.0)
    rows, columns = np.nonzero(np.asarray(turned.image.convert("L")) > 200)
    ((x_min, y_min, x_max, y_max),) = turned.boxes
    centre = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
    np.testing.assert_allclose([(x_min + x_max) / 2, (y_min + y_max) / 2], centre, atol=1)
    # A rectangle's box is wider than that of a car with round corners, by a few pixels.
    assert 0 <= (columns.max() - columns.min()) - (x_max - x_min) < 8
    assert y_min < 100  # counter-clockwise for the eye: what was at the right goes up


def test_a_source_that_labels_some_classes_weighs_only_those(tmp_path: Path) -> None:
    streets = _source(tmp_path, name="streets", labels_only=["car"])
    both = _source(tmp_path, name="both")
    recipe = _recipe(streets, both, classes=("tree", "car"), schedule=Schedule(epochs=1, mosaic=0))
    assert labelled_classes(recipe) == [[0.0, 1.0], [1.0, 1.0]]
    assert labelled_classes(_recipe(both, classes=("tree", "car"))) is None
    with pytest.raises(ValidationError, match="mosaic would mix"):
        _recipe(streets, both, classes=("tree", "car"), schedule=Schedule(epochs=1, mosaic=0.4))
    with pytest.raises(ValidationError, match="labels_only names car"):
        _recipe(streets, schedule=Schedule(epochs=1, mosaic=0))

"""Runs a model over labelled pictures or a labelled scene, and measures it.

The model looks through the same door as in production (``detection.sweep``), so that resampling,
windows and merging are measured with it. Entry points: ``evaluate_pictures``, ``evaluate_scene``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from detection.errors import LabelsUnusable, SceneWithoutCrs
from detection.evaluation.labels import Boxes, ClassNames, LabelledPicture
from detection.evaluation.matching import overlapping, rectangles
from detection.evaluation.measures import (
    POINT_REACH_M,
    Figures,
    Ground,
    Matched,
    match_ground,
    measure,
)
from detection.evaluation.mosaic import lay_together
from detection.evaluation.truth import TruthFile, inside, read_truth
from detection.imagery.scene import Scene, open_scene, scene_from_pixels

#: Pieces of a scene whose counts are compared: 512 px at 0.10 m, a city block.
BLOCK_M = 51.2
#: Average precision needs the weak detections too; below this they no longer change it.
LOWEST_SCORE = 0.02

Progress: TypeAlias = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a model found on one scene, down to a low score.

    Attributes:
        boxes_px: (n, 4) float64 in pixels of the scene.
        class_index: (n,) int16 into the model's classes.
        scores: (n,) float32.
    """

    boxes_px: Boxes
    class_index: NDArray[np.int16]
    scores: NDArray[np.float32]


Look: TypeAlias = Callable[[Scene], Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchRule:
    """What counts as the same object, beside the overlap of boxes.

    Attributes:
        point_reach_m: how far from a labelled point the centre of its detection may lie.
        class_agnostic: whatever classes labels and detections say.
    """

    point_reach_m: float = POINT_REACH_M
    class_agnostic: bool = False


AS_USUAL = MatchRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures and what they were made from.

    Attributes:
        images: the grounds as counted; ``blocks``: the same cut into pieces.
        pictures: how to get each image's pixels again, for drawing.
    """

    figures: Figures
    images: tuple[Ground, ...]
    blocks: tuple[Ground, ...]
    pictures: tuple[Callable[[], NDArray[np.uint8]], ...]
    thresholds: NDArray[np.float64]

    def matched(self, index: int) -> Matched:
        """The matches of one image at the thresholds."""
        return match_ground(self.images[index], self.thresholds)


def evaluate_pictures(
    look: Look,
    labelled: Sequence[LabelledPicture],
    thresholds: NDArray[np.float64],
    *,
    ground_resolution_m: float | None,
    layout: Path | None = None,
    rule: MatchRule = AS_USUAL,
    progress: Progress | None = None,
) -> Evaluation:
    """Measures a model on labelled pictures, each looked at alone, or laid together by a table.

    Args:
        ground_resolution_m: of pictures that do not say it themselves.
        rule: what counts as the same object.
        layout: table of patches (``mosaic``): then the truth is merged across their seams.

    Raises:
        LabelsUnusable: a picture has no georeference and no resolution is given.
    """
    if layout is not None:
        return _evaluate_mosaic(look, labelled, thresholds, ground_resolution_m, layout, rule)
    images = []
    for number, picture in enumerate(labelled):
        scene = picture_scene(picture.path, ground_resolution_m)
        images.append(
            _ground(
                picture.path.name,
                scene,
                look(scene),
                picture.boxes_px,
                picture.class_index,
                rule,
                points=picture.points,
            )
        )
        if progress is not None:
            progress(number + 1, len(labelled), "")
    return Evaluation(
        figures=measure(images, thresholds),
        images=tuple(images),
        blocks=tuple(images),
        pictures=tuple(_pixels_of(picture.path) for picture in labelled),
        thresholds=thresholds,
    )


def evaluate_scene(
    look: Look,
    scene_path: Path,
    truth_path: Path,
    names: ClassNames,
    thresholds: NDArray[np.float64],
    *,
    split: str | None = None,
    rule: MatchRule = AS_USUAL,
) -> Evaluation:
    """Measures a model on one scene with truth in GeoJSON.

    Args:
        split: only the objects whose property ``split`` has this value. Ground, and with it a
            detection that hits nothing, belongs to the split of the nearest object; objects of other
            splits, on the seam between two among them, are ignored with what is detected there.

    Raises:
        LabelsUnusable: no object of a wanted class, or of the split, lies on the scene.
    """
    scene = open_scene(scene_path)
    truth = read_truth(truth_path)
    boxes, classes, kept = _truth_on(scene, truth, names)
    found = look(scene)
    area_share = 1.0
    if split is not None:
        splits = np.array(truth.splits())[kept]
        if split not in splits:
            known = ", ".join(sorted({name for name in splits.tolist() if name})) or "none"
            raise LabelsUnusable(
                f"no object has split “{split}”", where=str(truth_path), do=f"Splits there: {known}."
            )
        here = splits == split
        found = _of_split(found, boxes, here)
        area_share = _share_of_split(scene, boxes, here)
        boxes, classes = boxes[here], classes[here]
    ground = _ground(
        scene.name, scene, found, boxes, classes, rule, points=truth.are_points, area_share=area_share
    )
    blocks = tuple(cut_into_blocks(ground))
    return Evaluation(
        figures=measure([ground], thresholds, blocks=blocks),
        images=(ground,),
        blocks=blocks,
        pictures=(_pixels_of(scene_path),),
        thresholds=thresholds,
    )


def picture_scene(path: Path, ground_resolution_m: float | None) -> Scene:
    """A picture as a scene: by its own georeference, else by the resolution given.

    Raises:
        LabelsUnusable: it has neither.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        try:
            return open_scene(path)
        except SceneWithoutCrs:
            pass  # an ordinary picture in a TIFF: the resolution given says how large it is
    if ground_resolution_m is None:
        raise LabelsUnusable(
            "nothing says how much ground a pixel covers",
            where=str(path),
            do="Give it in metres: --resolution-m 0.1.",
        )
    return scene_from_pixels(_pixels_of(path)(), ground_resolution_m, name=path.name)


def cut_into_blocks(ground: Ground, side_m: float = BLOCK_M) -> Iterator[Ground]:
    """The ground in squares; an object or detection is in the square that holds its centre.

    Squares without truth and without detections are left out; all get the mean area.
    """
    side = side_m / ground.ground_resolution_m
    true_cell, found_cell = _cells(ground.truth_px, side), _cells(ground.detected_px, side)
    cells = sorted({tuple(c) for c in np.concatenate([true_cell, found_cell]).tolist()})
    for cell in cells:
        true = (true_cell == cell).all(axis=1)
        found = (found_cell == cell).all(axis=1)
        yield replace(
            ground,
            name=f"{ground.name}[{cell[0]},{cell[1]}]",
            truth_px=ground.truth_px[true],
            truth_class=ground.truth_class[true],
            detected_px=ground.detected_px[found],
            detected_class=ground.detected_class[found],
            scores=ground.scores[found],
            area_km2=ground.area_km2 / len(cells),
        )


def _cells(boxes: Boxes, side: float) -> NDArray[np.int64]:
    return np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 / side).astype(np.int64)


def _evaluate_mosaic(
    look: Look,
    labelled: Sequence[LabelledPicture],
    thresholds: NDArray[np.float64],
    ground_resolution_m: float | None,
    layout: Path,
    rule: MatchRule,
) -> Evaluation:
    if ground_resolution_m is None:
        raise LabelsUnusable(
            "nothing says how much ground a pixel covers",
            where=str(layout),
            do="Give it in metres: --resolution-m 0.1.",
        )
    mosaic = lay_together(labelled, layout)
    scene = scene_from_pixels(mosaic.pixels, ground_resolution_m, name=layout.parent.name)
    ground = _ground(
        scene.name,
        scene,
        look(scene),
        mosaic.boxes_px,
        mosaic.class_index,
        rule,
        area_share=mosaic.present,
    )
    blocks = tuple(cut_into_blocks(ground, mosaic.patch_px[0] * ground_resolution_m))
    return Evaluation(
        figures=measure([ground], thresholds, blocks=blocks),
        images=(ground,),
        blocks=blocks,
        pictures=(lambda: mosaic.pixels,),
        thresholds=thresholds,
    )


def _ground(
    name: str,
    scene: Scene,
    found: Found,
    boxes: Boxes,
    classes: NDArray[np.int16],
    rule: MatchRule,
    *,
    points: bool = False,
    area_share: float = 1.0,
) -> Ground:
    width, height = scene.size_px
    area_m2 = width * height * scene.ground_resolution_m**2 * scene.validity.share
    return Ground(
        name=name,
        truth_px=boxes,
        truth_class=classes,
        detected_px=found.boxes_px,
        detected_class=found.class_index,
        scores=found.scores,
        ground_resolution_m=scene.ground_resolution_m,
        area_km2=area_m2 * area_share / 1e6,
        points=points,
        point_reach_m=rule.point_reach_m,
        class_agnostic=rule.class_agnostic,
    )


def _truth_on(
    scene: Scene, truth: TruthFile, names: ClassNames
) -> tuple[Boxes, NDArray[np.int16], NDArray[np.int64]]:
    """Boxes and classes of the wanted objects on the scene, and which features they are."""
    boxes = truth.boxes_on(scene)
    index = [names.index_of(name) for name in truth.class_names(names.wanted[0])]
    wanted = np.array([value is not None for value in index], dtype=bool)
    kept = np.flatnonzero(wanted & inside(boxes, scene.size_px))
    if not len(kept):
        raise LabelsUnusable(
            f"no object of class {', '.join(names.wanted)} lies on {scene.name}",
            where=str(truth.path),
            do="Compare the CRS of both, or say which classes are meant: --map name=class.",
        )
    classes = np.array([index[feature] for feature in kept], dtype=np.int16)
    # Labels end where the picture ends; a box beyond it could never be matched.
    limits = np.array([*scene.size_px, *scene.size_px], dtype=np.float64)
    return np.clip(boxes[kept], 0, limits), classes, kept


def _of_split(found: Found, boxes: Boxes, here: NDArray[np.bool_]) -> Found:
    """Detections that belong to a split: by the object they overlap most, else by the nearest."""
    kept = here[_owning_object(found.boxes_px, boxes)]
    return Found(
        boxes_px=found.boxes_px[kept],
        class_index=found.class_index[kept],
        scores=found.scores[kept],
    )


def _owning_object(detected: Boxes, boxes: Boxes) -> NDArray[np.int64]:
    if not len(detected):
        return np.empty(0, dtype=np.int64)
    tree = shapely.STRtree(rectangles(boxes))
    owner = np.asarray(tree.nearest(rectangles(detected)), dtype=np.int64)
    pairs = overlapping(detected, boxes)
    order = np.argsort(pairs.likeness, kind="stable")  # the last written, the greatest, stays
    owner[pairs.detection[order]] = pairs.truth[order]
    return owner


def _share_of_split(scene: Scene, boxes: Boxes, here: NDArray[np.bool_]) -> float:
    """Share of the scene whose nearest object is of the split, by a grid of 100 × 100 points."""
    width, height = scene.size_px
    x, y = np.meshgrid((np.arange(100) + 0.5) * width / 100, (np.arange(100) + 0.5) * height / 100)
    tree = shapely.STRtree(rectangles(boxes))
    return float(here[tree.nearest(shapely.points(x.ravel(), y.ravel()))].mean())


def _pixels_of(path: Path) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
        except OSError as error:
            raise LabelsUnusable(f"the picture cannot be read: {error}", where=str(path)) from error

    return read

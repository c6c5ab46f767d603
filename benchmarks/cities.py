"""Generated cities: trees that are planted and felled, and detectors that err as told, with the truth kept.

Everything follows from a seed: the same arguments give the same city and the same surveys, to the last bit.

**The ground** is a square of blocks of 100 m, streets between them. Trees stand in slots:

- *street*: two rows along each street, one slot every (least distance + 3 m), shaken along the street;
- *forest*, *park*, *garden*: inside a block, on lattices of pitch least distance + 2 m, × 2 and × 3, each
  slot shaken within its cell by at most half of (pitch − least distance) in x and in y.

So no two trees, standing at one time or not, are nearer than the least distance: no search is needed, and a
million trees take seconds. Of all slots the wanted number is drawn, weighted by how full each kind is
(`FULLNESS`): some 25 trees a hectare, half of them in streets, clumped in forests down to the least distance.
A tree planted later takes a free slot.

**A detector** has a recall, a precision, a persistent share s and a position error; *one look* is one scene
seen by one model.

- A share s·(1 − recall) of all trees is blind to the model: missed in every look. The others are seen in
  each look independently with recall / (1 − s·(1 − recall)), so that recall holds on the whole.
- False alarms have the density λ that gives the precision in the first year, and keep it when trees go:
  s·λ at fixed places, seen in every look; (1 − s)·λ at new places in each look. Their number is Poisson.
- False alarms lie at least 4 m from every tree standing then (the lasting ones from every tree there ever
  is) and 3 m from one another in one look, since a detector does not draw two boxes of one thing.
- A position is the truth + the flight's shift (one vector of given length in a random direction) + a normal
  error in x and in y. Sizes carry 10 % of error. Scores tell trees from false alarms, but weakly.

**A flight** is a campaign: one scene, or a mosaic of overlapping scenes, each surveyed on its own: its misses
and new false alarms are its own, the lasting ones are shared.

What a card would state of the detector (`Reliability`) is the truth here, so that what is measured is the
fold and not a card's mistakes. What is left out: crowns that hide one another, misses in clumps, position
errors that depend on the place, and hits on the trunk of a tree that was felled.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from inventory.domain.evidence import (
    Evidence,
    Floats,
    Integers,
    Look,
    Micros,
    Observations,
    Reliability,
    SceneLook,
    content_hashes,
)

YEAR_US = 365 * 24 * 3600 * 1_000_000
BLOCK_M = 100.0
KINDS = ("street", "forest", "park", "garden")
FULLNESS = {"street": 0.35, "forest": 0.9, "park": 0.5, "garden": 0.15}
_BLOCK_SHARES = {"forest": 0.08, "park": 0.15, "garden": 0.77}
_PITCH_TO_LEAST = {"forest": (1.0, 2.0), "park": (2.0, 0.0), "garden": (3.0, 0.0)}
"""Pitch of a kind's lattice: factor of the least distance, and metres on top."""
_TREES_PER_BLOCK = 24.0
_DENSE_M = 6.0
"""Up to this least distance there is room for so many."""
_CROSSING_M = 10.0
"""Street trees keep this far from the middle of a crossing."""
_CROWN_MEDIAN_M = 5.0
_CROWN_SPREAD = 0.3
_CROWN_RANGE_M = (2.0, 12.0)
_GROWTH = 0.02
_SIZE_ERROR = 0.1
FALSE_ALARM_FROM_TREES_M = 4.0
FALSE_ALARM_APART_M = 3.0
NEVER_FELLED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class City:
    """Every tree that ever stands, as columns of equal length, and the square it stands in.

    A tree stands in the years ``planted <= year < felled``; years count from 1. Positions are metres in the
    city's metric CRS; ``kind`` indexes ``KINDS``.
    """

    seed: int
    side_m: float
    origin_m: tuple[float, float]
    x: Floats
    y: Floats
    crown_m: Floats
    kind: Integers
    planted: Integers
    felled: Integers

    def standing(self, year: int) -> NDArray[np.bool_]:
        """(trees,) whether each stands in a year."""
        return np.asarray((self.planted <= year) & (year < self.felled))

    @property
    def ground(self) -> shapely.Polygon:
        """The whole square."""
        x, y = self.origin_m
        return shapely.box(x, y, x + self.side_m, y + self.side_m)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A model as its truth: what it misses, what it makes up, and how much of both comes again."""

    model: str = "generated"
    recall: float = 0.73
    precision: float = 0.73
    persistent_share: float = 0.0
    position_sigma_m: float = 0.5

    def false_alarms_per_m2(self, city: City) -> float:
        """λ: that which gives the precision with the trees of the first year."""
        seen = self.recall * city.standing(1).sum()
        return float(seen * (1 / self.precision - 1) / city.side_m**2)

    def reliability(self, city: City) -> Reliability:
        """What a true card would state."""
        return Reliability(
            precision=self.precision,
            recall=self.recall,
            false_alarms_per_m2=self.false_alarms_per_m2(city),
            persistent_share=self.persistent_share,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """One campaign: when, by what model, how far displaced, cut into how many scenes.

    ``part`` is the ground flown, as shares of the side: x_min, y_min, x_max, y_max.
    """

    year: int
    detector: Detector = field(default_factory=Detector)
    source: str = "aerial"
    shift_m: float = 1.0
    scenes: tuple[int, int] = (1, 1)
    overlap_m: float = 40.0
    ground_resolution_m: float = 0.1
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flown:
    """Looks, and the truth of them: ``tree_of[observation id]`` is the tree that it shows, −1 for none.

    Ids of observations run from 0 through all looks; ``shifts_m`` has a row a flight. Everything that a
    store needs is in the looks: ``look.scenes[i].observations`` are columns, ``.surveyed`` is the ground.
    """

    city: City
    flights: tuple[Flight, ...]
    looks: tuple[Look, ...]
    tree_of: Integers
    shifts_m: Floats

    @property
    def evidence(self) -> Evidence:
        """The looks as evidence about trees, without decisions."""
        return Evidence(class_name="tree", looks=self.looks, decisions=())


# --- trees ---------------------------------------------------------------------------------------------


def grow_city(
    *,
    seed: int,
    trees: int,
    side_m: float | None = None,
    least_distance_m: float = 6.0,
    felled: Mapping[int, float] | None = None,
    planted: Mapping[int, float] | None = None,
    origin_m: tuple[float, float] = (500_000.0, 5_000_000.0),
) -> City:
    """A city of trees.

    Args:
        trees: standing in year 1.
        side_m: of the square; None for some 25 trees a hectare. Rounded up to whole blocks.
        least_distance_m: between any two trees, felled ones included.
        felled: year → share of the trees of year 1 that no longer stand from that year on.
        planted: year → share of the trees of year 1 that stand as new ones from that year on.

    Raises:
        ValueError: the ground has too few slots for so many trees at that distance.
    """
    random = np.random.default_rng([seed, 1])
    felled, planted = felled or {}, planted or {}
    new = {year: round(share * trees) for year, share in planted.items()}
    wanted = trees + sum(new.values())
    blocks = int(np.ceil(side_m / BLOCK_M)) if side_m else _blocks(wanted, least_distance_m)
    x, y, kind = _slots(random, blocks, least_distance_m)
    if wanted > len(x):
        raise ValueError(f"{len(x)} slots on {blocks}² blocks are too few for {wanted} trees")
    # The largest keys of log weight + Gumbel noise are a weighted draw without replacement (Efraimidis
    # and Spirakis, Information Processing Letters 97, 2006).
    keys = np.log([FULLNESS[name] for name in KINDS])[kind] + random.gumbel(size=len(x))
    chosen = random.permutation(np.argpartition(-keys, wanted - 1)[:wanted])
    crown = np.clip(_CROWN_MEDIAN_M * random.lognormal(0, _CROWN_SPREAD, wanted), *_CROWN_RANGE_M)
    return City(
        seed=seed,
        side_m=blocks * BLOCK_M,
        origin_m=origin_m,
        x=x[chosen] + origin_m[0],
        y=y[chosen] + origin_m[1],
        crown_m=crown,
        kind=kind[chosen],
        # The chosen are in random order: the first ones stand from the start, and of them the first are felled.
        planted=np.repeat([1, *new], [trees, *new.values()]),
        felled=_felled(wanted, {year: round(share * trees) for year, share in felled.items()}),
    )


def _blocks(trees: int, least_m: float) -> int:
    """Blocks a side at the usual density, or thinner where the least distance asks for it."""
    per_block = _TREES_PER_BLOCK * min(1.0, (_DENSE_M / least_m) ** 2)
    # The first block has no street: a single one would hold next to nothing.
    return max(2, int(np.ceil(np.sqrt(trees / per_block))))


def _felled(trees: int, numbers: Mapping[int, int]) -> Integers:
    year = np.full(trees, NEVER_FELLED, np.int64)
    year[: sum(numbers.values())] = np.repeat(list(numbers), list(numbers.values()))
    return year


def _slots(random: np.random.Generator, blocks: int, least: float) -> tuple[Floats, Floats, Integers]:
    """Places where a tree may stand, no two nearer than ``least``: x, y and kind."""
    parts = [_street_slots(random, blocks, least)]
    block_kind = random.choice(3, size=blocks * blocks, p=list(_BLOCK_SHARES.values()))
    for number, name in enumerate(_BLOCK_SHARES):
        of_kind = np.flatnonzero(block_kind == number)
        parts.append(_block_slots(random, of_kind, blocks, name, least))
    x, y = (np.concatenate([part[axis] for part in parts]) for axis in (0, 1))
    kind = np.repeat(np.arange(len(KINDS)), [len(part[0]) for part in parts])
    return x, y, kind


def _row_offset_m(least: float) -> float:
    """From the middle of the street to a row of trees."""
    return max(4.0, least / 2)


def _street_slots(random: np.random.Generator, blocks: int, least: float) -> tuple[Floats, Floats]:
    pitch = least + 3.0
    # Rows of crossing streets meet at the crossing: the first slots keep clear of the other street's rows.
    clear = max(_CROSSING_M, _row_offset_m(least) + least)
    along = np.arange(clear + pitch / 2, BLOCK_M - clear - pitch / 2 + 1e-9, pitch)
    across = np.array([-1.0, 1.0]) * _row_offset_m(least)
    # Streets run in the middle between blocks; the city's border has none.
    shape = (blocks - 1, blocks, 2, len(along))
    lines, segments = np.arange(1, blocks) * BLOCK_M, np.arange(blocks) * BLOCK_M
    xs, ys = [], []
    for swapped in (False, True):
        u = np.broadcast_to(lines[:, None, None, None] + across[None, None, :, None], shape).ravel()
        v = np.broadcast_to(segments[None, :, None, None] + along, shape).ravel()
        v = v + random.uniform(-1.5, 1.5, len(v))
        xs.append(v if swapped else u)
        ys.append(u if swapped else v)
    return np.concatenate(xs), np.concatenate(ys)


def _block_slots(
    random: np.random.Generator, of_kind: Integers, blocks: int, name: str, least: float
) -> tuple[Floats, Floats]:
    factor, more = _PITCH_TO_LEAST[name]
    pitch = factor * least + more
    inset = _row_offset_m(least) + least
    count = max(int((BLOCK_M - 2 * inset) // pitch), 0)
    centres = BLOCK_M / 2 + (np.arange(count) - (count - 1) / 2) * pitch
    # Half a cell less half the least distance: neighbours' cells then keep it on at least one axis.
    shake = (pitch - least) / 2
    shape = (len(of_kind), count, count)
    x = np.broadcast_to((of_kind % blocks * BLOCK_M)[:, None, None] + centres[None, :, None], shape).ravel()
    y = np.broadcast_to((of_kind // blocks * BLOCK_M)[:, None, None] + centres[None, None, :], shape).ravel()
    return x + random.uniform(-shake, shake, len(x)), y + random.uniform(-shake, shake, len(y))


# --- looks ---------------------------------------------------------------------------------------------


def fly(city: City, flights: Sequence[Flight]) -> Flown:
    """The looks of flights at a city, and which tree each observation shows."""
    lasting = {flight.detector.model: _Lasting(city, flight.detector) for flight in flights}
    looks, trees, shifts, first_id = [], [], [], 0
    for number, flight in enumerate(flights):
        random = np.random.default_rng([city.seed, 3, number])
        angle = random.uniform(0, 2 * np.pi)
        shift = flight.shift_m * np.array([np.cos(angle), np.sin(angle)])
        scenes = []
        for row, ground in enumerate(_grounds(city, flight)):
            seen = _see(random, city, flight, lasting[flight.detector.model], ground, shift)
            name = f"{city.seed} {city.side_m} {number} {row} {flight.source} {flight.detector.model}"
            scene = _scene_look(
                seen, flight, city, ground, name, survey_id=1000 * number + row, first_id=first_id
            )
            scenes.append(scene)
            trees.append(seen["tree"])
            first_id += len(seen["tree"])
        looks.append(Look(at=Micros(flight.year * YEAR_US), scenes=tuple(scenes)))
        shifts.append(shift)
    return Flown(
        city=city,
        flights=tuple(flights),
        looks=tuple(looks),
        tree_of=np.concatenate([*trees, np.empty(0, np.int64)]),
        shifts_m=np.array(shifts).reshape(-1, 2),
    )


class _Lasting:
    """What one model gets wrong in every look: trees it is blind to, and false alarms at fixed places."""

    def __init__(self, city: City, detector: Detector) -> None:
        digest = hashlib.sha256(detector.model.encode()).digest()
        random = np.random.default_rng([city.seed, 2, int.from_bytes(digest[:4], "big")])
        share = detector.persistent_share * (1 - detector.recall)
        self.blind = random.random(len(city.x)) < share
        self.recall_of_others = min(detector.recall / (1 - share), 1.0)
        everything = cKDTree(np.column_stack([city.x, city.y]))
        expected = detector.persistent_share * detector.false_alarms_per_m2(city) * city.side_m**2
        self.places = _false_alarms(
            random, random.poisson(expected), city.ground, everything, np.empty((0, 2))
        )
        self.crown_m = _false_crowns(random, len(self.places))


def _see(
    random: np.random.Generator,
    city: City,
    flight: Flight,
    lasting: _Lasting,
    ground: shapely.Polygon,
    shift: Floats,
) -> dict[str, NDArray[Any]]:
    """One scene's hits: columns x, y, width_m, height_m, score and tree."""
    detector = flight.detector
    standing = np.flatnonzero(city.standing(flight.year) & shapely.contains_xy(ground, city.x, city.y))
    found = random.random(len(standing)) < lasting.recall_of_others
    hit = standing[found & ~lasting.blind[standing]]
    again = np.flatnonzero(shapely.contains_xy(ground, *lasting.places.T))
    expected = (1 - detector.persistent_share) * detector.false_alarms_per_m2(city) * ground.area
    trees = cKDTree(np.column_stack([city.x, city.y])[city.standing(flight.year)])
    new = _false_alarms(random, random.poisson(expected), ground, trees, lasting.places[again])
    place = np.concatenate([np.column_stack([city.x[hit], city.y[hit]]), lasting.places[again], new])
    grown = (1 + _GROWTH) ** (flight.year - city.planted[hit])
    crown = np.concatenate(
        [city.crown_m[hit] * grown, lasting.crown_m[again], _false_crowns(random, len(new))]
    )
    n, real = len(place), len(hit)
    place = place + shift + random.normal(0, detector.position_sigma_m, (n, 2))
    return {
        "x": place[:, 0],
        "y": place[:, 1],
        "width_m": crown * random.lognormal(0, _SIZE_ERROR, n),
        "height_m": crown * random.lognormal(0, _SIZE_ERROR, n),
        "score": np.concatenate([random.beta(5, 3, real), random.beta(4, 4, n - real)]),
        "tree": np.concatenate([hit, np.full(n - real, -1)]).astype(np.int64),
    }


def _false_alarms(
    random: np.random.Generator, count: int, ground: shapely.Polygon, trees: cKDTree, others: Floats
) -> Floats:
    """(count, 2) places away from trees, from ``others`` and from one another."""
    x_min, y_min, x_max, y_max = ground.bounds
    kept = others
    while (missing := count + len(others) - len(kept)) > 0:
        tried = random.uniform((x_min, y_min), (x_max, y_max), (2 * missing + 10, 2))
        if trees.n:
            near, _ = trees.query(tried, distance_upper_bound=FALSE_ALARM_FROM_TREES_M)
            tried = tried[np.isinf(near)]
        # The later of two that are too near goes; those kept so far come first.
        together = np.concatenate([kept, tried])
        pairs = cKDTree(together).query_pairs(FALSE_ALARM_APART_M, output_type="ndarray")
        good = np.ones(len(together), bool)
        good[pairs.max(axis=1)] = False
        good[: len(kept)] = True
        kept = together[good][: count + len(others)]
    return kept[len(others) :]


def _false_crowns(random: np.random.Generator, count: int) -> Floats:
    return np.clip(_CROWN_MEDIAN_M * random.lognormal(0, _CROWN_SPREAD, count), *_CROWN_RANGE_M)


def _grounds(city: City, flight: Flight) -> list[shapely.Polygon]:
    """The scenes' grounds: a mosaic whose neighbours overlap."""
    left, bottom = (city.origin_m[axis] + flight.part[axis] * city.side_m for axis in (0, 1))
    right, top = (city.origin_m[axis] + flight.part[axis + 2] * city.side_m for axis in (0, 1))
    columns, rows = flight.scenes
    xs, ys = np.linspace(left, right, columns + 1), np.linspace(bottom, top, rows + 1)
    half = flight.overlap_m / 2
    return [
        shapely.box(
            max(xs[i] - half, left),
            max(ys[j] - half, bottom),
            min(xs[i + 1] + half, right),
            min(ys[j + 1] + half, top),
        )
        for i in range(columns)
        for j in range(rows)
    ]


def _scene_look(
    seen: dict[str, NDArray[Any]],
    flight: Flight,
    city: City,
    ground: shapely.Polygon,
    name: str,
    *,
    survey_id: int,
    first_id: int,
) -> SceneLook:
    content = hashlib.sha256(name.encode()).hexdigest()
    corner = np.array(ground.bounds[:2])
    xy = np.column_stack([seen["x"], seen["y"]]) - corner
    size = np.column_stack([seen["width_m"], seen["height_m"]])
    boxes_px = np.concatenate([xy - size / 2, xy + size / 2], axis=1) / flight.ground_resolution_m
    hashes = content_hashes(content, boxes_px)
    order = np.argsort(hashes, kind="stable")
    observations = Observations(
        id=np.arange(first_id, first_id + len(xy)),
        x=seen["x"],
        y=seen["y"],
        error_m=np.full(len(xy), flight.detector.position_sigma_m),
        width_m=seen["width_m"],
        height_m=seen["height_m"],
        score=seen["score"],
        content=hashes,
    )
    return SceneLook(
        survey_id=survey_id,
        model=flight.detector.model,
        reliability=flight.detector.reliability(city),
        ground_resolution_m=flight.ground_resolution_m,
        surveyed=shapely.MultiPolygon([ground]),
        content=content,
        observations=observations.take(order),
    )

"""One identity through the years, on generated cities (`benchmarks/cities.py`): what the fold makes of five surveys.

    python -m benchmarks.years [--json] [--seeds 10] [--net-seeds 100] [--trees 5000] [--first-seed 0]

Recall = precision = 0.73, position σ 0.5 m, trees ≥ 6 m apart, false alarms ≥ 4 m from trees, a shift of 1 m
a survey; persistent shares 0, ½ and 1; five yearly surveys. Cities of four kinds: *unchanged*; *changed*: 10 %
felled between surveys 3 and 4 and 5 % planted before 4; *felled*: felled alone; *sparse*: 100 trees over 4 km².

Prints one object. Where a figure is one number it is the worst over the shares, by seed or over all seeds as told:

- ``count_error_max``: |listed / true − 1|, worst survey and seed of unchanged and changed cities;
  ``count_error_felled_max``: of felled ones;
- ``id_kept_min``: of trees listed at a survey, standing and listed at the next, those with the same id (worst
  survey and seed; of all but sparse cities); ``duplicates_max``: listed assets that show a tree already listed;
- ``list_precision``: after five unchanged surveys at share 0, worst seed; ``precision_gain_min``: the list less
  the survey's own hits, any survey and share, mean over seeds (one seed scatters by ± 0.005 in year 2);
- ``felled_gone``: of the felled trees that had been listed, those *gone* by survey 5, all seeds together;
  ``standing_gone``: the like of standing ones at share 0; ``felled_listed``, ``standing_listed``: still listed;
- ``net_interval_coverage``: of the 90 % intervals of the net change between surveys 3 and 5 of felled cities,
  those that hold the truth (``--net-seeds``); ``net_ratio``: mean estimate ÷ truth, the farthest from 1;
- ``sparse_dropped``: of the listed trees that still stand at the next survey, those no longer listed, a year;
- ``orders_identical``: 12 surveys and 20 decisions in 200 random orders of ingest give the same count at every
  date; ``states_identical``: and the same states in all they say.

``shares`` gives all of these by persistent share.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.cities import YEAR_US, City, Detector, Flight, Flown, fly, grow_city
from benchmarks.judging import Verdict, discordant, judge
from inventory.domain.change import NetChange, net_change
from inventory.domain.evidence import Decision, DecisionKind, Evidence, Micros
from inventory.domain.fold import Folded, fold
from inventory.domain.tally import CountError

SHARES = (0.0, 0.5, 1.0)
SURVEYS = 5
KINDS: dict[str, dict[str, Any]] = {
    "unchanged": {},
    "changed": {"felled": {4: 0.10}, "planted": {4: 0.05}},
    "felled": {"felled": {4: 0.10}},
    "sparse": {"trees": 100, "side_m": 2000.0},
}
NET_SURVEYS = (3, 5)
ORDERS = 200
ORDERED_SURVEYS = 12
ORDERED_DECISIONS = 20
PROCESSES = 2
_NO_ERROR_OF_GROUND = CountError(relative_error=0.0, dispersion=0.0)
"""The generated detector errs alike everywhere."""


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--net-seeds", type=int, default=100)
    parser.add_argument("--trees", type=int, default=5_000)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    outcome = measure(
        seeds=given.seeds, net_seeds=given.net_seeds, trees=given.trees, first_seed=given.first_seed
    )
    if given.json:
        print(json.dumps(outcome))
        return
    for name, value in outcome.items():
        if name != "shares":
            print(f"{name:>24} {value}")
    for share, values in outcome["shares"].items():
        print(f"\npersistent share {share}")
        for name, value in values.items():
            print(f"{name:>24} {value}")


def measure(*, seeds: int, net_seeds: int, trees: int, first_seed: int = 0) -> dict[str, Any]:
    """All figures."""
    started = time.perf_counter()
    tasks = [
        _Task(kind=kind, share=share, seed=first_seed + seed, trees=trees)
        for share in SHARES
        for kind in KINDS
        for seed in range(max(seeds, net_seeds) if kind == "felled" else seeds)
    ]
    with ProcessPoolExecutor(PROCESSES) as pool:
        in_any_order = pool.submit(_orders, first_seed)
        outcomes = list(pool.map(_run, tasks, chunksize=8))
        same_counts, same_states = in_any_order.result()
    judged = [outcome for outcome in outcomes if outcome.task.seed < first_seed + seeds]
    shares = {
        share: _of_share([outcome for outcome in judged if outcome.task.share == share])
        | _of_net([o.net for o in outcomes if o.task.share == share and o.task.kind == "felled"])
        for share in SHARES
    }
    return {
        **_over_shares(shares),
        "orders_identical": same_counts,
        "states_identical": same_states,
        "seeds": seeds,
        "net_seeds": net_seeds,
        "first_seed": first_seed,
        "trees": trees,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
        "seconds": round(time.perf_counter() - started, 1),
        "shares": {str(share): values for share, values in shares.items()},
    }


# --- one city ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    kind: str
    share: float
    seed: int
    trees: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Net:
    estimate: NetChange
    truth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    task: _Task
    verdicts: list[Verdict]
    net: _Net


def _run(task: _Task) -> _Outcome:
    detector = Detector(persistent_share=task.share)
    city = grow_city(**{"seed": task.seed, "trees": task.trees, **KINDS[task.kind]})
    flown = fly(city, [Flight(year=year, detector=detector) for year in range(1, SURVEYS + 1)])
    folded = fold(flown.evidence, static=True)
    return _Outcome(task=task, verdicts=judge(flown, folded), net=_net(city, flown, folded, detector))


def _net(city: City, flown: Flown, folded: Folded, detector: Detector) -> _Net:
    first, last = NET_SURVEYS
    only_before, only_after = discordant(flown, folded, first - 1, last - 1)
    return _Net(
        estimate=net_change(
            only_before=only_before,
            only_after=only_after,
            recall=detector.recall,
            error=_NO_ERROR_OF_GROUND,
        ),
        truth=int(city.standing(last).sum()) - int(city.standing(first).sum()),
    )


# --- figures -------------------------------------------------------------------------------------------


def _of_share(outcomes: Sequence[_Outcome]) -> dict[str, float]:
    """The figures of one persistent share."""
    by_kind = {kind: [o.verdicts for o in outcomes if o.task.kind == kind] for kind in KINDS}
    five = [verdicts[-1] for verdicts in by_kind["unchanged"]]
    felled = [verdicts[-1] for verdicts in by_kind["felled"]]
    dense = [v for kind in KINDS if kind != "sparse" for verdicts in by_kind[kind] for v in verdicts]
    gains = np.array([[v.precision - v.hit_precision for v in verdicts] for verdicts in by_kind["unchanged"]])
    errors = {kind: max(abs(v.count_error) for vs in by_kind[kind] for v in vs) for kind in KINDS}
    figures = {
        "count_error_max": max(errors["unchanged"], errors["changed"]),
        "count_error_felled_max": errors["felled"],
        "id_kept_min": min(v.kept for v in dense if v.kept is not None),
        "duplicates_max": max(v.duplicates / v.listed for v in dense),
        "duplicates_mean": _mean(v.duplicates / v.listed for v in dense),
        "list_precision": min(v.precision for v in five),
        "list_precision_mean": _mean(v.precision for v in five),
        "precision_gain_min": float(gains.mean(axis=0).min()),
        "precision_gain_min_of_a_seed": float(gains.min()),
        "felled_gone": _mean(v.felled_gone for v in felled),
        "felled_listed": _mean(v.felled_listed for v in felled),
        "standing_gone": _mean(v.standing_gone for v in felled),
        "standing_listed": _mean(v.standing_listed for v in felled),
        "sparse_dropped": _mean(v.dropped for verdicts in by_kind["sparse"] for v in verdicts),
    }
    for year in range(1, SURVEYS):
        dropped = _mean(verdicts[year].dropped for verdicts in by_kind["sparse"])
        figures[f"sparse_dropped_year_{year + 1}"] = dropped
    return {name: round(value, 4) for name, value in figures.items()}


def _of_net(nets: Sequence[_Net]) -> dict[str, float]:
    ratios = np.array([net.estimate.net / net.truth for net in nets])
    held = [(n.estimate.low or 0) <= n.truth <= (n.estimate.high or 0) for n in nets]
    widths = [((n.estimate.high or 0) - (n.estimate.low or 0)) / 2 / abs(n.truth) for n in nets]
    return {
        "net_interval_coverage": round(float(np.mean(held)), 4),
        "net_ratio": round(float(ratios.mean()), 4),
        "net_ratio_deviation": round(float(ratios.std()), 4),
        "net_half_width": round(float(np.mean(widths)), 4),
    }


def _over_shares(shares: dict[float, dict[str, float]]) -> dict[str, float]:
    """The worst of all shares; precision and losses of standing trees are those of independent errors."""

    def all_of(name: str) -> list[float]:
        return [values[name] for values in shares.values()]

    largest = (
        "count_error_max",
        "count_error_felled_max",
        "duplicates_max",
        "felled_listed",
        "sparse_dropped",
    )
    least = ("id_kept_min", "felled_gone", "precision_gain_min", "net_interval_coverage", "standing_listed")
    return {
        **{name: max(all_of(name)) for name in largest},
        **{name: min(all_of(name)) for name in least},
        "list_precision": shares[0.0]["list_precision"],
        "standing_gone": shares[0.0]["standing_gone"],
        "net_ratio": max(all_of("net_ratio"), key=lambda ratio: abs(ratio - 1)),
    }


def _mean(values: Iterable[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


# --- any order of ingest -------------------------------------------------------------------------------


def _orders(seed: int) -> tuple[bool, bool]:
    """Whether all orders give the same counts at every date, and the same states."""
    random = np.random.default_rng([seed, 4])
    evidence = _years_with_decisions(seed, random)
    counts, states = set(), set()
    for _ in range(ORDERS):
        folded = fold(_shuffled(evidence, random), static=True)
        counts.add(_counts(folded, evidence))
        states.add(_said(folded))
    return len(counts) == 1, len(states) == 1


def _years_with_decisions(seed: int, random: np.random.Generator) -> Evidence:
    """Twelve surveys by two models, some of part of the city, some mosaics; decisions at trees between them."""
    city = grow_city(seed=seed, trees=120, felled={5: 0.1}, planted={7: 0.1})
    models = [Detector(persistent_share=0.5), Detector(model="second", recall=0.8, precision=0.8)]
    flown = fly(
        city,
        [
            Flight(
                year=year,
                detector=models[year % 2],
                scenes=(1 + year % 3, 1),
                part=(0.0, 0.0, 0.6, 1.0) if year % 4 == 3 else (0.0, 0.0, 1.0, 1.0),
            )
            for year in range(1, ORDERED_SURVEYS + 1)
        ],
    )
    kinds = [kind for kind in DecisionKind if kind is not DecisionKind.RETRACT]
    decisions = tuple(
        _decision(kinds[number % len(kinds)], number, city, random) for number in range(ORDERED_DECISIONS)
    )
    return replace(flown.evidence, decisions=decisions)


def _decision(kind: DecisionKind, number: int, city: City, random: np.random.Generator) -> Decision:
    tree = int(random.integers(len(city.x)))
    x, y = float(city.x[tree]), float(city.y[tree])
    return Decision(
        sequence=number,
        kind=kind,
        class_name="tree",
        at=Micros(int(random.uniform(1.1, ORDERED_SURVEYS) * YEAR_US)),
        x=x,
        y=y,
        gate_m=3.0,
        details={"x": x + 2.0, "y": y, "class": "palm"},
    )


def _shuffled(evidence: Evidence, random: np.random.Generator) -> Evidence:
    """The same facts as if they had come in another order; decisions are numbered as they come."""
    looks = [evidence.looks[i] for i in random.permutation(len(evidence.looks))]
    decisions = [evidence.decisions[i] for i in random.permutation(len(evidence.decisions))]
    return replace(
        evidence,
        looks=tuple(
            replace(look, scenes=tuple(look.scenes[i] for i in random.permutation(len(look.scenes))))
            for look in looks
        ),
        decisions=tuple(replace(decision, sequence=number) for number, decision in enumerate(decisions)),
    )


def _counts(folded: Folded, evidence: Evidence) -> tuple[int, ...]:
    states = folded.states
    dates = sorted({look.at for look in evidence.looks} | {decision.at for decision in evidence.decisions})
    return tuple(
        int(states["listed"][(states["valid_from"] <= at) & (at < states["valid_to"])].sum()) for at in dates
    )


def _said(folded: Folded) -> bytes:
    """What all states say, without the numbers of tracks and of decisions."""
    names = ("valid_from", "valid_to", "x", "y", "listed", "status", "probability", "hits", "observation_id")
    rows = np.column_stack([folded.states[name].astype(np.float64) for name in names])
    return rows[np.lexsort(rows.T)].tobytes()


if __name__ == "__main__":
    main()

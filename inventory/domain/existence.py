"""How probable it is that an asset is there, and which assets are listed (R8)."""

import numpy as np
from numpy.typing import NDArray

from inventory.domain.evidence import Floats, Hashes, Integers, Reliability

STAYING_ODDS = 1.5
"""What is listed makes way only for what is more probable by this factor."""
_CHANGED_SHARE = 0.01
"""Share of trees that go, and that come, between two looks: so that a first hit late in a long series is not
held impossible, nor a miss of a model whose errors all persist."""
PROBABILITY_RANGE = (0.001, 0.999)


def first_hit_probability(
    reliability: Reliability,
    *,
    hits_per_m2: float | Floats,
    looks_before: Integers,
    others_before: Integers | int = 0,
) -> Floats:
    """Probability that a first hit is real: r·u / (r·u + λ), u the density of things not yet detected.

    Things to which the model is blind make no hit, and false alarms that persist were there at the model's
    first look: from the second on, what counts is what is seen by chance.

    Args:
        hits_per_m2: density of the look's hits, of which the card's precision is real; one, or one a hit.
        looks_before: (n,) adequate looks at that ground by the same model before this one.
        others_before: (n,) those by other models, taken to be as good as this one.
    """
    s, blind = reliability.persistent_share, _blind_share(reliability)
    r = reliability.recall / (1 - blind)
    real_per_m2 = np.asarray(hits_per_m2) * reliability.precision / reliability.recall
    others = np.asarray(others_before)
    unseen_by_others = np.where(others > 0, blind + (1 - blind) * (1 - r) ** others, 1.0)
    left = (1 - r) ** looks_before * unseen_by_others
    came = np.where(looks_before + others > 0, _CHANGED_SHARE, 0.0)
    expected = real_per_m2 * reliability.recall * (left + came)
    # Those that persist come anew only where the ground changed.
    false = reliability.false_alarms_per_m2 * np.where(looks_before > 0, 1 - s * (1 - _CHANGED_SHARE), 1.0)
    return np.clip(expected / np.maximum(expected + false, 1e-15), *PROBABILITY_RANGE)


def _blind_share(reliability: Reliability) -> float:
    """Share of things that a model misses in every look: that part of its misses which persists."""
    return min(reliability.persistent_share * (1 - reliability.recall), 1 - 1e-6)


def lasting_at_first(reliability: Reliability, *, looks_before: Integers) -> Floats:
    """Probability that a false alarm just found is one that every look of its model repeats.

    That is the persistent share, unless the model has looked there before: those that persist it found then, and
    such a one comes anew only where the ground changed.
    """
    s = reliability.persistent_share
    late = s * _CHANGED_SHARE / max(1 - s * (1 - _CHANGED_SHARE), 1e-9)
    return np.where(looks_before > 0, late, s)


def updated_lasting(
    lasting: Floats, reliability: Reliability, *, hit: NDArray[np.bool_], gate_area_m2: Floats
) -> Floats:
    """The same after one more look by the model of the newest hit: a hit makes it likelier, a miss rules it out."""
    chance = _chance(reliability, gate_area_m2)
    return np.where(hit, lasting / np.maximum(lasting + (1 - lasting) * chance, 1e-9), 0.0)


def updated_probability(
    probability: Floats,
    reliability: Reliability,
    *,
    hit: NDArray[np.bool_],
    same_model: NDArray[np.bool_],
    lasting: Floats,
    gate_area_m2: Floats,
) -> Floats:
    """Bayes' rule for assets already known, after a hit or an adequate miss.

    What a model has seen once it is not blind to: a real thing is hit again with probability r / (1 − s·(1 − r)),
    s the persistent share; a false alarm with q + (1 − q)·λ·(area of the gate), q the probability that it is one of
    those that persist: repeated looks by one model are not independent. By another model: with r, and with
    λ·(area of the gate).
    """
    real = reliability.recall / np.where(same_model, 1 - _blind_share(reliability), 1.0)
    real = np.minimum(real, 1.0) * (1 - _CHANGED_SHARE)
    lasting = np.where(same_model, lasting, 0.0)
    # A hit never speaks against a thing.
    false = np.minimum(lasting + (1 - lasting) * _chance(reliability, gate_area_m2), 0.95 * real)
    likelihood_ratio = np.where(hit, real / false, (1 - real) / (1 - false))
    odds = probability / (1 - probability) * likelihood_ratio
    return np.clip(odds / (1 + odds), *PROBABILITY_RANGE)


def _chance(reliability: Reliability, gate_area_m2: Floats) -> Floats:
    """Probability of a false alarm within the gate, of those that do not persist."""
    return np.clip(reliability.false_alarms_per_m2 * gate_area_m2, 1e-3, 0.5)


def choose_listed(
    cell: Integers,
    *,
    hit: NDArray[np.bool_],
    before: NDArray[np.bool_],
    probability: Floats,
    gone: NDArray[np.bool_],
    score: Floats,
    content: Hashes,
) -> NDArray[np.bool_]:
    """Per cell, as many assets as its newest look has hits: those of highest probability, gone ones last.

    All arguments are (n,) over the undecided assets whose newest adequate look is one and the same; ``before``
    says which were listed until then.
    """
    odds = probability / (1 - probability) * np.where(before, STAYING_ODDS, 1.0)
    order = np.lexsort((content, -score, ~hit, -odds, gone, cell))
    _, first, of_cell = np.unique(cell[order], return_index=True, return_inverse=True)
    rank = np.arange(len(order)) - first[of_cell]
    wanted = np.bincount(of_cell, weights=hit[order]).astype(np.int64)
    listed = np.zeros(len(cell), bool)
    listed[order] = rank < wanted[of_cell]
    return listed

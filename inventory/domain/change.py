"""What a change between two dates says (R13): what came, what went, how sure, and whether it may be said at all."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from math import sqrt
from typing import Any

from inventory.domain.tally import Z90, CountError

_SHARE_TOLERANCE = 0.05
"""Ground first surveyed between the dates brings things that are not new: beyond this share nothing is said.
A flight's edges wander by metres from year to year, which must not silence a whole district."""
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """How a place was looked at by a date: the share surveyed, and the models of the looks that count there.

    ``models``: SHA-256 of the network, which makes a model what it is → its name in words.
    """

    share: float
    models: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Identities that came to and went from one place and class between two dates.

    ``new`` and ``gone`` were listed at one of the dates only, anywhere. ``entered`` and ``left`` were listed at
    both, and belong to the place and class at one of them only: moved, reclassified, or across a border drawn
    anew. So listed_to − listed_from = new − gone + entered − left.

    Of what nobody decided, listed or not: ``only_before`` and ``only_after`` were seen by one date's newest look
    and not by the other's, on ground that both saw; ``crossed`` by both, and came into the place less left it.
    ``decided`` is the change of what people decided: what is listed of it at the second date less at the first.
    """

    listed_from: int = 0
    listed_to: int = 0
    new: int = 0
    gone: int = 0
    entered: int = 0
    left: int = 0
    moved: int = 0
    reclassified: int = 0
    only_before: int = 0
    only_after: int = 0
    crossed: int = 0
    decided: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRow:
    """The change of one place and class. ``flow`` is None for classes without identity (R10).

    ``count_from`` and ``count_to`` are None where nothing was surveyed by that date, never 0.

    ``net`` is None where the dates cannot be compared, and ``reason`` says why; ``low`` and ``high`` are None
    there and where a model behind the counts was never evaluated. ``note`` says what a reader must know of a net.
    """

    area: str
    name: str
    class_name: str
    from_day: date
    to_day: date
    count_from: int | None
    count_to: int | None
    flow: Flow | None
    net: float | None
    low: float | None
    high: float | None
    reason: str | None
    note: str | None

    @property
    def comparable(self) -> bool:
        """Whether the change may be stated (R13)."""
        return self.reason is None

    def as_json(self) -> dict[str, Any]:
        """The object of ``change --json``."""
        flow = self.flow
        return {
            "area": self.area,
            "name": self.name,
            "class": self.class_name,
            "from": self.from_day.isoformat(),
            "to": self.to_day.isoformat(),
            "count_from": self.count_from,
            "count_to": self.count_to,
            "new": flow.new if flow else None,
            "gone": flow.gone if flow else None,
            "moved": flow.moved if flow else None,
            "reclassified": flow.reclassified if flow else None,
            "entered": flow.entered if flow else None,
            "left": flow.left if flow else None,
            "net": self.net,
            "low": self.low,
            "high": self.high,
            "comparable": self.comparable,
            "reason": self.reason,
            "note": self.note,
        }


def why_not_comparable(was: LookedAt | None, now: LookedAt | None) -> str | None:
    """Why nothing is said of a change between two dates; None where it may be said (R13).

    Another model has another bias: a difference between two models is theirs, not the city's.
    """
    if was is None or now is None:
        if was is None and now is None:
            return "not surveyed by either date"
        return "not surveyed by the first date" if was is None else "not surveyed by the second date"
    if was.models.keys() != now.models.keys():
        first, second = (_names(looked.models.values()) for looked in (was, now))
        return f"the looks used different models: {first}, then {second}"
    if len(was.models) > 1:
        return f"the looks used several models: {_names(was.models.values())}"
    if now.share - was.share > _SHARE_TOLERANCE:
        return f"{was.share:.0%} was surveyed by the first date, {now.share:.0%} by the second"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetChange:
    """Things there at the later look less things there at the earlier one, with a 90 % interval."""

    net: float
    low: float | None
    high: float | None


def net_change(*, only_before: int, only_after: int, recall: float, error: CountError | None) -> NetChange:
    """The net change that two looks show: (seen only later − seen only earlier) / recall.

    Of what came or went the model sees the share of its recall, while false alarms come and go alike: so the
    difference of two counts, each unbiased alone, falls short of a change by precision or recall, and this
    does not.

    The interval rests on what differs between the looks: errors that persist are in both and cancel, those
    that do not each make one discordant thing (McNemar, Psychometrika 12, 1947; a half added to either
    number, so that few do not pass for none: Agresti and Min, Statistics in Medicine 24, 2005). Things that
    came or went are discordant without error, but for the share that the model overlooks. How much a kind of
    ground errs (e) both looks share: of the change alone e is unknown.

    Args:
        only_before: tracks on ground that both looks surveyed, hit at the earlier and not at the later look.
        only_after: those hit at the later and not at the earlier one.
        recall: the card's.
        error: None for unvalidated models: then there is no interval.
    """
    difference = only_after - only_before
    net = difference / recall
    if error is None:
        return NetChange(net=round(net, 1), low=None, high=None)
    variance = (only_before + only_after + 1 - recall * abs(difference)) / recall**2
    half = Z90 * sqrt(variance + (error.relative_error * net) ** 2)
    return NetChange(net=round(net, 1), low=round(net - half, 1), high=round(net + half, 1))


def net_between(flow: Flow, *, recall: float | None, error: CountError | None, same_look: bool) -> NetChange:
    """The net change of a place between two dates: what looks show of it, and what people decided, exactly.

    Args:
        recall, error: of the model of both looks; None for one that was never evaluated: then the net is the
            difference of the two counts, and has no interval.
        same_look: nothing was looked at between the dates: people's decisions are counted, without error.
    """
    difference = float(flow.listed_to - flow.listed_from)
    if same_look:
        return NetChange(net=difference, low=difference, high=difference)
    if recall is None or error is None:
        return NetChange(net=difference, low=None, high=None)
    seen = net_change(only_before=flow.only_before, only_after=flow.only_after, recall=recall, error=error)
    exact = flow.crossed + flow.decided
    bounds = [None if bound is None else round(bound + exact, 1) for bound in (seen.low, seen.high)]
    return NetChange(net=round(seen.net + exact, 1), low=bounds[0], high=bounds[1])


def _names(models: Iterable[str]) -> str:
    names = list(dict.fromkeys(models))
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")

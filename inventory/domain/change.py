"""What changed on a piece of ground between two looks of one model, and how sure that is (R13)."""

from dataclasses import dataclass
from math import sqrt

from inventory.domain.tally import Z90, CountError


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

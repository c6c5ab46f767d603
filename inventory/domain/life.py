"""The life of one asset: looks, decisions and states put together, as events in order of date (R9, R11).

The fold says what was so, as of every instant; here it is told what happened: seen, missed, gone, decided, listed
or no longer listed, each with whose word it was.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from math import dist
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeState:
    """What is said of the asset from ``valid_from`` until ``valid_to`` (None: until now)."""

    class_name: str
    valid_from: datetime
    valid_to: datetime | None
    listed: bool
    status: str
    verified: bool
    review: bool
    lon_lat: tuple[float, float]
    xy: tuple[float, float]
    error_m: float
    crown_m: float
    probability: float
    hits: int
    first_seen: datetime
    last_seen: datetime
    first_missed: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeLook:
    """A survey in force over ground where the asset stood. ``box_px`` and ``score``: its hit on it, if it had one.

    ``at`` is when its campaign takes effect: one look may have several surveys (R4). ``lon_lat``: where the asset
    stood as of the look, EPSG:4326; ``size_px``: width and height of the scene.
    """

    at: datetime
    campaign_id: int
    campaign: str
    source: str
    survey: str
    survey_id: int
    scene: str
    path: str | None
    taken_at: datetime
    model: str
    lon_lat: tuple[float, float]
    ground_resolution_m: float
    size_px: tuple[int, int]
    georeference_hash: str
    attribution: str | None
    box_px: tuple[float, ...] | None
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeDecision:
    """What a person said. ``retracts``: the decision that this one takes back."""

    public_id: str
    kind: str
    at: datetime
    author: str
    reason: str | None
    recorded_at: datetime
    details: Mapping[str, Any]
    retracts: str | None
    taken_back_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """When and why something was written down, and by whom (R14)."""

    at: datetime
    cause: str
    subject: str | None
    author: str


class EventKind(StrEnum):
    """What may happen to an asset; decisions are named by their own kinds."""

    NOT_YET = "not_yet"
    FIRST_SEEN = "first_seen"
    SEEN = "seen"
    MISSED = "missed"
    GONE = "gone"
    NOT_JUDGED = "not_judged"
    LISTED = "listed"
    UNLISTED = "unlisted"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, what was so afterwards, and on whose word.

    ``interval`` of a *gone*: it went after the first and by the second. ``details``: what else belongs to the event.
    """

    at: datetime
    event: str
    status: str | None
    listed: bool
    look: LifeLook | None = None
    decision: LifeDecision | None = None
    recorded: Recorded | None = None
    interval: tuple[datetime, datetime] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object in ``asset --json``."""
        look, decision, recorded = self.look, self.decision, self.recorded
        shown: dict[str, Any] = {
            "at": self.at.isoformat(),
            "event": self.event,
            "status": self.status,
            "listed": self.listed,
            "survey": look.survey if look else None,
            "scene": look.scene if look else None,
            "source": look.source if look else None,
            "model": look.model if look else None,
            "score": None if look is None or look.score is None else round(look.score, 4),
            "decision": decision.public_id if decision else None,
            "author": decision.author if decision else None,
            "reason": decision.reason if decision else None,
            "recorded_at": recorded.at.isoformat() if recorded else None,
            "recorded_cause": _cause(recorded) if recorded else None,
        }
        if self.interval is not None:
            shown["last_seen"], shown["first_missed"] = (at.isoformat() for at in self.interval)
        return shown | dict(self.details)


def _cause(recorded: Recorded) -> str:
    return f"{recorded.cause} {recorded.subject}" if recorded.subject else recorded.cause


def events_of(
    states: Sequence[LifeState],
    looks: Iterable[LifeLook],
    decisions: Iterable[LifeDecision],
    *,
    written: Mapping[datetime, Recorded],
    replaced_by: Mapping[str, datetime],
) -> tuple[Event, ...]:
    """What happened, in order of date; at one instant looks come before decisions (R1).

    Args:
        states: of one asset, oldest first.
        looks: those that hit it or saw its ground; of one campaign the hit first.
        written: the change by which something was first said of each instant.
        replaced_by: ids that took its place, and when they were first seen.
    """
    facts = _Facts(states, written)
    events: list[Event] = []
    looks_at: dict[datetime, list[LifeLook]] = {}
    for look in looks:
        looks_at.setdefault(look.at, []).append(look)
    decided_at: dict[datetime, list[LifeDecision]] = {}
    for decision in decisions:
        decided_at.setdefault(decision.at, []).append(decision)
    for at in sorted({*looks_at, *decided_at, *(state.valid_from for state in states)}):
        happened = [*facts.looked(at, looks_at.get(at, ())), *facts.decided(at, decided_at.get(at, ()))]
        events += happened
        events += facts.listings(at, happened)
    for successor, since in replaced_by.items():
        state = facts.at(since)
        events.append(
            Event(
                at=since,
                event=EventKind.REPLACED,
                status=state.status if state else None,
                listed=bool(state and state.listed),
                details={"by": successor},
            )
        )
    return tuple(sorted(events, key=lambda event: event.at))


class _Facts:
    """The states by time."""

    def __init__(self, states: Sequence[LifeState], written: Mapping[datetime, Recorded]) -> None:
        self._states, self._written = states, written

    def at(self, instant: datetime) -> LifeState | None:
        """What was said at the end of an instant."""
        return next(
            (
                state
                for state in reversed(self._states)
                if state.valid_from <= instant and (state.valid_to is None or instant < state.valid_to)
            ),
            None,
        )

    def before(self, instant: datetime) -> LifeState | None:
        """What was said until an instant."""
        return next((state for state in reversed(self._states) if state.valid_from < instant), None)

    def looked(self, at: datetime, looks: Sequence[LifeLook]) -> Iterator[Event]:
        """One event per campaign."""
        seen: set[int] = set()
        for look in sorted(looks, key=lambda one: (one.box_px is None, one.scene)):
            if look.campaign_id not in seen:
                seen.add(look.campaign_id)
                yield self._look(at, look)

    def _look(self, at: datetime, look: LifeLook) -> Event:
        before, after = self.before(at), self.at(at)
        kind, interval = self._judged(look, before, after)
        event = self._event(at, kind, look=look)
        if interval is not None:
            event = replace(event, interval=interval)
        if before is None or after is None:
            return event
        if kind is EventKind.SEEN and before.status in ("doubtful", "gone"):
            return replace(event, details={"after": before.status})
        if after.review and not before.review:
            return replace(event, details={"review": "opened"})
        return event

    def _judged(
        self, look: LifeLook, before: LifeState | None, after: LifeState | None
    ) -> tuple[EventKind, tuple[datetime, datetime] | None]:
        if look.box_px is not None:
            return (EventKind.FIRST_SEEN if before is None else EventKind.SEEN), None
        if after is None or before is None:
            return EventKind.NOT_YET, None
        missed = after.first_missed is not None and after.first_missed <= look.at
        if not missed or (after.valid_from != look.at and after.status == "present"):
            # Its whole gate was not looked at, or another scene of the look saw it (R4, R5).
            return EventKind.NOT_JUDGED, None
        if after.status == "gone" and before.status != "gone" and after.first_missed is not None:
            return EventKind.GONE, (after.last_seen, after.first_missed)
        return EventKind.MISSED, None

    def decided(self, at: datetime, decisions: Sequence[LifeDecision]) -> Iterator[Event]:
        """One event per decision; those taken back are told too, with who did."""
        for decision in decisions:
            details: dict[str, Any] = {}
            if decision.taken_back_by is not None:
                details["taken_back_by"] = decision.taken_back_by
            if decision.retracts is not None:
                details["retracts"] = decision.retracts
            known = ("class", "text", "with")
            details |= {name: decision.details[name] for name in known if name in decision.details}
            before, after = self.before(at), self.at(at)
            if decision.kind == "add" and before is not None:
                details["known_already"] = True
            if decision.kind == "move" and before is not None and after is not None:
                details |= {
                    "from": list(before.lon_lat),
                    "to": list(after.lon_lat),
                    "by_m": round(dist(before.xy, after.xy), 2),
                }
            yield replace(self._event(at, decision.kind, decision=decision), details=details)

    def listings(self, at: datetime, happened: Sequence[Event]) -> Iterator[Event]:
        """Whether it is counted from now on, or not any more; by itself where only the ranking changed (R8)."""
        before, after = self.before(at), self.at(at)
        was, now = bool(before and before.listed), bool(after and after.listed)
        if was == now:
            return
        cause = happened[-1] if happened else None
        yield self._event(
            at,
            EventKind.LISTED if now else EventKind.UNLISTED,
            look=cause.look if cause else None,
            decision=cause.decision if cause else None,
        )

    def _event(
        self, at: datetime, kind: str, *, look: LifeLook | None = None, decision: LifeDecision | None = None
    ) -> Event:
        state = self.at(at)
        return Event(
            at=at,
            event=str(kind),
            status=state.status if state else None,
            listed=bool(state and state.listed),
            look=look,
            decision=decision,
            recorded=self._written.get(at) if state and state.valid_from == at else None,
        )

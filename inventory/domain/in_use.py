"""Which models a city uses for a class, and whose runs are evidence (R3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Runs of a model that are evidence; of several on one scene, those of the highest rank.

    Attributes:
        since, until: only runs recorded then, ``until`` not among them; None: at any time.
    """

    model: str
    rank: int
    since: datetime | None = None
    until: datetime | None = None


def models_in_use(listed: Sequence[str], choices: Sequence[tuple[str, datetime]]) -> tuple[str, ...]:
    """The models that look at new scenes: the first of them that can; the taxonomy's stand behind the chosen ones.

    Args:
        listed: the taxonomy's models of the class, first before second.
        choices: models as they were chosen and when, earliest first. One that is chosen back takes all
            back that came after it.
    """
    stack = [model for model, _ in _stack(listed, choices)]
    return tuple(dict.fromkeys([*reversed(stack), *listed]))


def standings(listed: Sequence[str], choices: Sequence[tuple[str, datetime]]) -> list[Standing]:
    """Whose runs count: those of the models in use, then those made by others while these were in use.

    A run that a model made before it was chosen counts only while it is in use: so choosing back gives what
    there was before. One that it made while it was in use stays, where no model of now has looked.
    """
    in_use = models_in_use(listed, choices)
    found = [Standing(model=model, rank=len(in_use) - place) for place, model in enumerate(in_use)]
    for number in range(1, len(choices) + 1):
        _, at = choices[number - 1]
        before, now = (_stack(listed, choices[:count]) for count in (number - 1, number))
        found += [
            Standing(model=model, rank=number - len(choices) - 1, since=since, until=at)
            for model, since in before
            if model not in {one for one, _ in now} and model not in in_use
        ]
    return found


def _stack(listed: Sequence[str], choices: Sequence[tuple[str, datetime]]) -> list[tuple[str, datetime]]:
    stack: list[tuple[str, datetime]] = []
    for model, at in choices:
        known = [one for one, _ in stack]
        if model in known:
            del stack[known.index(model) + 1 :]
            continue
        if model in listed:
            stack.clear()
        stack.append((model, at))
    return stack

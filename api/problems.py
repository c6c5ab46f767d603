"""The only table from the error tree to HTTP statuses and exit codes.

Exit codes: 0 done, 1 refused, 2 usage, 69 store, 75 busy, 78 configuration, 130 interrupted.
"""

from dataclasses import dataclass

from detection.errors import (
    CallerError,
    Conflict,
    LabelsUnusable,
    MissingExtra,
    ModelError,
    SceneUnusable,
    UnknownName,
    UrbanInventoryError,
)
from inventory.errors import (
    BodyTooLarge,
    BodyTooSlow,
    BoundariesUnusable,
    ClusterUnusable,
    ConfigurationError,
    DataUnavailable,
    DecisionUnusable,
    NotAllowed,
    PolygonTooLarge,
    PolygonUnusable,
    PreconditionFailed,
    RightsMissing,
    SchemaBehind,
    StoreBusy,
    StoreError,
    TimeUnusable,
    WrongMediaType,
)

DONE = 0
REFUSED = 1
USAGE = 2
STORE = 69
BUSY = 75
CONFIGURATION = 78
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a class of errors leaves the program."""

    http_status: int
    exit_code: int


_TABLE: dict[type[UrbanInventoryError], Outcome] = {
    UrbanInventoryError: Outcome(500, REFUSED),
    CallerError: Outcome(400, REFUSED),
    UnknownName: Outcome(404, REFUSED),
    Conflict: Outcome(409, REFUSED),
    SceneUnusable: Outcome(422, REFUSED),
    LabelsUnusable: Outcome(422, REFUSED),
    BoundariesUnusable: Outcome(422, REFUSED),
    DecisionUnusable: Outcome(422, REFUSED),
    TimeUnusable: Outcome(400, REFUSED),
    PolygonUnusable: Outcome(422, REFUSED),
    PolygonTooLarge: Outcome(413, REFUSED),
    BodyTooLarge: Outcome(413, REFUSED),
    BodyTooSlow: Outcome(408, REFUSED),
    WrongMediaType: Outcome(415, REFUSED),
    PreconditionFailed: Outcome(412, REFUSED),
    NotAllowed: Outcome(403, REFUSED),
    ModelError: Outcome(500, REFUSED),
    MissingExtra: Outcome(501, CONFIGURATION),
    ConfigurationError: Outcome(500, CONFIGURATION),
    DataUnavailable: Outcome(503, REFUSED),
    StoreError: Outcome(503, STORE),
    StoreBusy: Outcome(503, BUSY),
    SchemaBehind: Outcome(503, CONFIGURATION),
    RightsMissing: Outcome(503, REFUSED),
    ClusterUnusable: Outcome(503, STORE),
}


def outcome_of(error: UrbanInventoryError) -> Outcome:
    """Status and exit code of an error: its class's row, else that of the nearest class above."""
    for kind in type(error).__mro__:
        if kind in _TABLE:
            return _TABLE[kind]
    return _TABLE[UrbanInventoryError]


def problem(error: UrbanInventoryError) -> dict[str, str | None]:
    """The error's fields, as ``--json`` and problem+json show them."""
    return {"code": error.code, "what": error.what, "where": error.where, "do": error.do}

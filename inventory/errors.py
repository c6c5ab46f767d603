"""The inventory's branches of the error tree (root and picture in ``detection/errors.py``).

UrbanInventoryError ─┬─ CallerError ─┬─ BoundariesUnusable, FilterUnusable, TimeUnusable
                     │               ├─ FeatureUnusable, WrongMediaType, BodyTooLarge, BodyTooSlow
                     │               ├─ PreconditionFailed, NotAllowed
                     │               ├─ DecisionUnusable ─ DecisionsUnusable
                     │               ├─ JsonUnusable ──── JsonTooDeep, NumberTooLong
                     │               └─ PolygonUnusable ─┬─ PolygonTooLarge, TooManyVertices
                     │                                   ├─ CoordinateNotFinite, CoordinateOutOfRange
                     │                                   ├─ CrossesAntimeridian, PolygonDegenerate
                     │                                   └─ UnsupportedGeometry, PolygonTooIntricate
                     ├─ ConfigurationError          a setting is wrong
                     ├─ DataUnavailable             no network, no mirror, or other data than expected
                     └─ StoreError ─┬─ StoreUnreachable     no server answers
                                    ├─ StoreBusy ── DataFolderInUse   another program holds what is needed
                                    ├─ SchemaBehind         the database waits for ``migrate``
                                    ├─ RightsMissing        this role may not change the schema
                                    └─ ClusterUnusable ─┬─ ServerMissing            no PostgreSQL, no PostGIS
                                                        └─ ClusterVersionUnusable   not this version
"""

from collections.abc import Mapping

from detection.errors import CallerError, UrbanInventoryError

_SHOWN_PROBLEMS = 50


class BoundariesUnusable(CallerError):
    """A file of areas cannot be read as boundaries."""

    code = "boundaries_unusable"


class FilterUnusable(CallerError):
    """A filter cannot be read, names something unknown, or compares what cannot be compared."""

    code = "filter_invalid"


class FeatureUnusable(CallerError):
    """A feature that somebody sent cannot be read as an asset."""

    code = "feature_invalid"


class BodyTooLarge(CallerError):
    """A body is longer than the service takes."""

    code = "body_too_large"


class BodyTooSlow(CallerError):
    """A body does not come to its end in the time that the service gives it."""

    code = "body_too_slow"


class WrongMediaType(CallerError):
    """A body is of a type that nothing here reads."""

    code = "unsupported_media_type"


class PreconditionFailed(CallerError):
    """What somebody wants to change is not as they knew it."""

    code = "precondition_failed"


class NotAllowed(CallerError):
    """The caller may not do that."""

    code = "not_allowed"


class PolygonUnusable(CallerError):
    """A polygon to count in is no polygon."""

    code = "geometry_invalid"


class PolygonTooLarge(PolygonUnusable):
    """A polygon to count in is larger than the service accepts."""

    code = "body_too_large"


class TooManyVertices(PolygonUnusable):
    """A polygon to count in has more vertices or rings than the service accepts."""

    code = "too_many_vertices"


class CoordinateNotFinite(PolygonUnusable):
    """A coordinate is no finite number."""

    code = "coordinate_not_finite"


class CoordinateOutOfRange(PolygonUnusable):
    """A coordinate lies outside of ±180, ±90: swapped, or in another CRS."""

    code = "coordinate_out_of_range"


class CrossesAntimeridian(PolygonUnusable):
    """What a ring does at the 180th meridian may mean either way (RFC 7946, section 3.1.9)."""

    code = "antimeridian"


class PolygonDegenerate(PolygonUnusable):
    """A ring is open, or encloses no ground."""

    code = "geometry_degenerate"


class UnsupportedGeometry(PolygonUnusable):
    """GeoJSON of another kind than one polygon or multipolygon."""

    code = "unsupported_geometry"


class PolygonTooIntricate(PolygonUnusable):
    """Checking the polygon takes longer than the service gives it."""

    code = "geometry_too_intricate"


class JsonUnusable(CallerError):
    """What should be JSON is not."""

    code = "json_invalid"


class JsonTooDeep(JsonUnusable):
    """JSON nested deeper than any geometry needs."""

    code = "json_too_deep"


class NumberTooLong(JsonUnusable):
    """A number with more digits than any coordinate needs."""

    code = "number_too_long"


class DecisionUnusable(CallerError):
    """A decision lacks something, or speaks of nothing."""

    code = "decision_unusable"


class DecisionsUnusable(DecisionUnusable):
    """Of several decisions some cannot be used; ``problems``: number (from 0) → what is wrong with it."""

    code = "decisions_unusable"

    def __init__(
        self,
        problems: Mapping[int, UrbanInventoryError],
        *,
        of: int,
        where: str | None = None,
        noun: str = "decision",
    ) -> None:
        self.problems, self.of = dict(problems), of
        lines = [f"{noun} {number + 1}: {self.problems[number]}" for number in sorted(self.problems)]
        more = len(lines) - _SHOWN_PROBLEMS
        shown = [*lines[:_SHOWN_PROBLEMS], *([f"and {more:,} more"] if more > 0 else [])]
        plural = noun if of == 1 else f"{noun}s"
        super().__init__(
            f"{len(problems):,} of {of:,} {plural} cannot be used, so nothing was stored",
            where=where,
            do="\n  ".join(["Mend each:", *shown]),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _decisions_unusable, (self.problems, self.of, self.where)


def _decisions_unusable(
    problems: Mapping[int, UrbanInventoryError], of: int, where: str | None
) -> DecisionsUnusable:
    return DecisionsUnusable(problems, of=of, where=where)


class TimeUnusable(CallerError):
    """A date, instant or interval cannot be read."""

    code = "time_unusable"


class ConfigurationError(UrbanInventoryError):
    """A setting of the installation is wrong."""

    code = "configuration"


class DataUnavailable(UrbanInventoryError):
    """Data that a command needs cannot be had, or are not the ones expected."""

    code = "data_unavailable"


class StoreError(UrbanInventoryError):
    """The database cannot answer."""

    code = "store_error"


class StoreUnreachable(StoreError):
    """No database server answers at the address given."""

    code = "store_unreachable"


class StoreBusy(StoreError):
    """Another program holds what is needed."""

    code = "store_busy"


class DataFolderInUse(StoreBusy):
    """Another program does on the data folder what only one may do at a time."""

    code = "data_folder_in_use"


class SchemaBehind(StoreError):
    """The database's schema and this program are of different versions."""

    code = "schema_behind"


class RightsMissing(StoreError):
    """The role of the address may not change the schema; the database's administrator may."""

    code = "rights_missing"


class ClusterUnusable(StoreError):
    """The embedded PostgreSQL cannot run here."""

    code = "cluster_unusable"


class ServerMissing(ClusterUnusable):
    """PostgreSQL or PostGIS is not installed."""

    code = "server_missing"


class ClusterVersionUnusable(ClusterUnusable):
    """The data folder was made by a version of PostgreSQL that is not installed."""

    code = "cluster_version"

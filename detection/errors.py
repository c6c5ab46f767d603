"""The one tree of errors, drawn from its root; ``inventory/errors.py`` adds its branches.

UrbanInventoryError ─┬─ CallerError ─┬─ UnknownName        a city, area, class, asset or model nobody knows
                     │               ├─ Conflict           what is asked contradicts what is stored
                     │               ├─ SceneUnusable ─┬─ SceneUnreadable, FormatNotAllowed
                     │               │                 ├─ SceneWithoutCrs, SceneNotProjected
                     │               │                 ├─ SceneTooCoarse, SceneWithoutGround
                     │               │                 ├─ SceneWithoutDate, SceneOutsideCity
                     │               │                 └─ TooMuchToRead
                     │               └─ LabelsUnusable     labels that cannot be read
                     ├─ ModelError ──── ModelUntrusted, BoxShapeError
                     └─ MissingExtra                       an optional dependency is not installed

Every error says *what* happened, *where*, and what to *do*: three fields, one sentence. ``code`` is
the stable name that scripts and the API show. ``api/problems.py`` alone maps classes to HTTP statuses
and exit codes.
"""

from typing import ClassVar


class UrbanInventoryError(Exception):
    """The root: whatever this program refuses or fails at, in words a user can act on."""

    code: ClassVar[str] = "error"

    def __init__(self, what: str, *, where: str | None = None, do: str | None = None) -> None:
        self.what = what
        self.where = where
        self.do = do
        super().__init__(what, where, do)

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        return f"{sentence.rstrip('.')}. {self.do}" if self.do else sentence

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (executors): keyword-only fields need saying how to rebuild.
        return _rebuild, (type(self), self.what, self.where, self.do)


def _rebuild(
    kind: type[UrbanInventoryError], what: str, where: str | None, do: str | None
) -> UrbanInventoryError:
    return kind(what, where=where, do=do)


class CallerError(UrbanInventoryError):
    """The request cannot be carried out as it stands; the caller can mend it."""

    code = "bad_request"


class UnknownName(CallerError):
    """Nothing has this name: a city, area, class, asset, survey or model."""

    code = "unknown_name"


class Conflict(CallerError):
    """What is asked contradicts what is stored."""

    code = "conflict"


class SceneUnusable(CallerError):
    """An image cannot serve as a scene."""

    code = "scene_unusable"


class SceneUnreadable(SceneUnusable):
    """The file is not an image, or is damaged."""

    code = "scene_unreadable"


class FormatNotAllowed(SceneUnusable):
    """A format outside the list of those that are safe to read."""

    code = "format_not_allowed"


class SceneWithoutCrs(SceneUnusable):
    """Nothing says where on earth the pixels lie."""

    code = "scene_without_crs"


class SceneNotProjected(SceneUnusable):
    """The transform or CRS does not lay the pixels on the ground."""

    code = "scene_not_projected"


class SceneTooCoarse(SceneUnusable):
    """The ground resolution is outside what the model or class can see at."""

    code = "scene_too_coarse"


class SceneWithoutGround(SceneUnusable):
    """No pixel is valid: all nodata."""

    code = "scene_without_ground"


class SceneWithoutDate(SceneUnusable):
    """Nothing says when the image was taken."""

    code = "scene_without_date"


class SceneOutsideCity(SceneUnusable):
    """The image does not show any ground of the city."""

    code = "scene_outside_city"


class TooMuchToRead(SceneUnusable):
    """A picture of so much ground would have to read more of the file than one answer may."""

    code = "too_much_to_read"


class LabelsUnusable(CallerError):
    """Labels of a data set cannot be read, or do not fit their images."""

    code = "labels_unusable"


class ModelError(UrbanInventoryError):
    """A model's card and network disagree, or it cannot be loaded."""

    code = "model_error"


class ModelUntrusted(ModelError):
    """The file would run code when loaded, and nobody said that it is trusted."""

    code = "model_untrusted"


class BoxShapeError(ModelError):
    """A detector returned boxes of the wrong shape."""

    code = "box_shape"


class MissingExtra(UrbanInventoryError):
    """An optional part of the program is not installed."""

    code = "missing_extra"

"""Which verified assets later imagery did not see, so that a person is asked again (R11)."""

from collections.abc import Sequence

from inventory.counting import classes_asked
from inventory.domain.places import City
from inventory.store import cities, reviews
from inventory.store.database import Database, Patience
from inventory.store.reviews import Review


def open_reviews(
    database: Database, city_code: str, *, classes: Sequence[str] | None = None
) -> tuple[City, list[Review]]:
    """The city, and its open reviews, the longest open first.

    Raises:
        UnknownName: no such city, or it knows nothing of one of the classes.
    """
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        city = cities.get_city(connection, city_code)
        wanted = None if classes is None else classes_asked(connection, city, classes)
        return city, reviews.open_reviews(connection, city, wanted)

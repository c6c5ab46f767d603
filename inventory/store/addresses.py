"""Addresses of databases as people write them."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from inventory.errors import ConfigurationError

_PLAIN = ("postgresql", "postgres")


def engine_url(address: str) -> str:
    """The address with our driver named, so that ``postgresql://…`` of any other program serves too.

    Raises:
        ConfigurationError: it is no address of PostgreSQL. The message does not repeat it: it may hold a
            password.
    """
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise _unusable() from error
    if url.drivername in _PLAIN:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername != "postgresql+psycopg":
        raise _unusable()
    return url.render_as_string(hide_password=False)


def without_password(address: str) -> str:
    """The address as it may be shown: *** in place of a password, also of one in its parameters."""
    try:
        url = make_url(address)
    except ArgumentError:
        return "*** (not an address)"
    secret = {key: "***" for key in url.query if "password" in key.lower()}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def _unusable() -> ConfigurationError:
    return ConfigurationError(
        "this is no address of a PostgreSQL database",
        where="URBAN_INVENTORY_DATABASE_URL or URBAN_INVENTORY_OWNER_DATABASE_URL",
        do="Write it as postgresql://USER:PASSWORD@HOST/DATABASE.",
    )

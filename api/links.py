"""Addresses that we hand out: always absolute, since QGIS and the OGC's suites use them verbatim.

They start with the configured public address; without one, the service listens on loopback alone and they
start with the loopback name and port that the caller used (``perimeter.py`` lets no other name through).
"""

from urllib.parse import quote, urlencode

from fastapi import Request

Link = dict[str, str]

# Never repeated in a link: clients append their own token to what we hand out, and logs would keep ours.
_UNREPEATED = frozenset({"token"})


def base_url(request: Request) -> str:
    """The service's own address, without a slash at the end."""
    public: str | None = request.app.state.public_url
    return public or f"{request.url.scheme}://{request.url.netloc}"


def city_url(request: Request, city: str) -> str:
    """The address of a city's landing page, without a slash at the end."""
    return f"{base_url(request)}/cities/{quote(city, safe='')}"


def link(href: str, rel: str, media_type: str, title: str | None = None) -> Link:
    """A link object of the OGC's documents."""
    made = {"rel": rel, "type": media_type, "href": href}
    return made if title is None else {**made, "title": title}


def with_query(address: str, parameters: list[tuple[str, str]]) -> str:
    """The address with a query string that is a legal URI, without what must not be repeated."""
    kept = [(name, value) for name, value in parameters if name not in _UNREPEATED]
    return f"{address}?{urlencode(kept, quote_via=quote)}" if kept else address


def changed_query(request: Request, **changes: str | None) -> list[tuple[str, str]]:
    """The request's parameters, each once (the last wins), with some set anew or (None) left out."""
    kept = {**dict(request.query_params), **changes}
    return [(name, value) for name, value in kept.items() if value is not None]


def header_value(links: list[Link]) -> str:
    """The links as the value of one HTTP ``Link`` header."""
    return ", ".join(f'<{each["href"]}>; rel="{each["rel"]}"; type="{each["type"]}"' for each in links)

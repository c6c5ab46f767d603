"""Pages for people: Jinja2 templates with escaping always on, in the package itself."""

import re
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from api.links import base_url, with_query

# As the database writes an instant in a session whose time zone is UTC.
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}.*\+00:00$")


def _cell(value: Any) -> str:
    """A value as a table shows it: – for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, str) and _INSTANT.match(value):
        return f"{value[:10]} {value[11:16]} UTC"
    return str(value)


def _as_json_link(href: str) -> str:
    """The address with ``f=json`` in the place of any other form."""
    address, _, query = href.partition("?")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "f"]
    return with_query(address, [*kept, ("f", "json")])


_ENVIRONMENT = Environment(
    loader=PackageLoader("api.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["cell"] = _cell
_ENVIRONMENT.filters["as_json_link"] = _as_json_link


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A rendered template; every page knows the service's address for its footer and its files."""
    text = _ENVIRONMENT.get_template(template).render(base=base_url(request), **values)
    return HTMLResponse(text, status_code=status)

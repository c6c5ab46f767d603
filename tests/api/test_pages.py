"""The pages for people: a form of every resource, inert whatever the data say, loading nothing from elsewhere."""

import io
import re
import tarfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

import api
from tests.api.conftest import HOSTILE, Service

PAGES = (
    "/", "/cities", "/cities/town", "/cities/town/", "/cities/town/conformance", "/cities/town/collections",
    "/cities/town/collections/assets", "/cities/town/collections/assets/items", "/cities/town/api",
    "/cities/town/collections/areas/items", "/cities/town/collections/surveys/items",
    "/cities/town/collections/observations/items", "/cities/town/collections/assets/items/a00001",
    "/cities/town/collections/areas/items/district:A", "/cities/town/counts", "/cities/town/counts?level=district",
    "/attribution", "/source", "/cities/nowhere",
)  # fmt: skip


class Elements(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements_of(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(text)
    return parser.found


@pytest.mark.parametrize("path", PAGES)
def test_every_resource_has_a_page_with_source_and_attribution_in_its_footer(
    service: Service, path: str
) -> None:
    answer = service.get(path, accept="text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.status_code == (404 if "nowhere" in path else 200)
    for place in ("/source", "/attribution"):
        assert f'href="{service.url}{place}"' in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_we1_hostile_names_are_text_on_every_page(service: Service, path: str) -> None:
    text = service.get(path, accept="text/html").text
    tags = elements_of(text)

    assert "img" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "49" not in re.findall(r"alert\(1\)&gt;(\d+)", text)


def test_we1_a_hostile_name_is_there_to_be_seen(service: Service) -> None:
    text = service.get("/cities/town", accept="text/html").text

    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in text


def test_we1_a_hostile_address_is_text_in_its_refusal(service: Service) -> None:
    for path in ("/cities/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/cities/town?%3Cscript%3E=1"):
        answer = service.get(path, accept="text/html")
        assert answer.status_code in (400, 404)
        assert "script" not in {tag for tag, _ in elements_of(answer.text)}


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_no_inline_script_or_style_and_load_only_ours(service: Service, path: str) -> None:
    for tag, attributes in elements_of(service.get(path, accept="text/html").text):
        assert tag != "style"
        assert "style" not in attributes
        if tag == "script":
            assert (attributes["src"] or "").startswith(f"{service.url}/static/")
        if tag == "link":
            assert (attributes["href"] or "").startswith(f"{service.url}/static/")


def test_scripts_put_no_html_into_pages_and_name_no_other_host() -> None:
    static = Path(api.__file__).parent / "web" / "static"

    for script in static.glob("*.mjs"):
        text = script.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|eval\(", text)
        assert not re.search(r"https?://", text)


def test_the_page_of_items_leads_on(service: Service) -> None:
    text = service.get("/cities/many/collections/assets/items", accept="text/html").text
    (following,) = re.findall(r'href="([^"]*cursor=[^"]*)"', text)
    second = service.client.get(following.replace("&amp;", "&"), headers={"Accept": "text/html"}).text

    assert "a00001" in text
    assert "a00051" in second
    assert "a00001<" not in second


def test_f_wins_over_accept(service: Service) -> None:
    assert (
        service.get("/cities/town?f=json", accept="text/html").headers["content-type"] == "application/json"
    )
    assert service.get("/cities/town?f=html").headers["content-type"].startswith("text/html")
    assert service.get("/cities/town?f=pdf").status_code == 400
    items = "/cities/town/collections/assets/items"
    assert (
        service.get(f"{items}?f=geojson", accept="text/html").headers["content-type"]
        == "application/geo+json"
    )


def test_r15_attribution_names_each_source_and_licence(service: Service) -> None:
    cities = {city["id"]: city["imagery"] for city in service.get("/attribution").json()["cities"]}

    assert cities["town"] == [
        {"source": "test drone", "attribution": "Test <b>Fliers</b>", "licence": "CC BY 4.0", "scenes": 1}
    ]
    page = service.get("/cities/town", accept="text/html").text
    assert "Test &lt;b&gt;Fliers&lt;/b&gt;, licence: CC BY 4.0" in page


def test_source_is_the_running_program_as_an_archive(service: Service) -> None:
    answer = service.get("/source")

    assert answer.headers["content-type"] == "application/gzip"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        member = archive.extractfile(
            next(name for name in archive.getnames() if name.endswith("/api/app.py"))
        )
        assert member is not None
        assert member.read() == (Path(api.__file__).parent / "app.py").read_bytes()
    assert {
        "api/source.py", "api/web/templates/base.html", "api/web/static/city.mjs", "api/web/package-lock.json",
        "inventory/store/migrations/sql/0001_tables.sql", "detection/sweep.py", "data/taxonomy.toml",
    } <= names  # fmt: skip
    assert not [
        name for name in names if "__pycache__" in name or "node_modules" in name or name.startswith("/")
    ]

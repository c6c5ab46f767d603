"""The page of a city in a real browser: its map shows tiles, and everything on it can be asked about."""

import base64
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import api
from tests.api.conftest import HOSTILE, MANY, Service

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FLAGS = ["--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-background-networking"]
MAP = "document.getElementById('inventory').map"
# All tiles are there and drawn.
SETTLED = f"() => new Promise(done => {MAP}.loaded() ? done() : {MAP}.once('idle', done))"


@dataclass(slots=True)
class Shown:
    """A page, what it asked for, and what went wrong in it."""

    page: Any
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector("#inventory[data-ready=yes]", timeout=30_000)
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_timeout(300)
        self.page.evaluate(SETTLED)

    def look_at(self, lon: float, lat: float, zoom: float) -> None:
        self.page.evaluate(f"() => {MAP}.jumpTo({{center: [{lon}, {lat}], zoom: {zoom}}})")
        self.settle()

    def drawn(self, layer: str) -> list[dict[str, Any]]:
        """The properties of what a layer of the map shows."""
        found: list[dict[str, Any]] = self.page.evaluate(
            f"() => {MAP}.queryRenderedFeatures({{layers: ['{layer}']}}).map(each => each.properties)"
        )
        return found

    def click_at(self, lon: float, lat: float) -> None:
        box = self.page.locator("#map canvas").bounding_box()
        x, y = self.page.evaluate(f"() => {{ const p = {MAP}.project([{lon}, {lat}]); return [p.x, p.y]; }}")
        self.page.mouse.click(box["x"] + x, box["y"] + y)

    def tiles(self) -> list[dict[str, list[str]]]:
        """The queries of the tiles that were asked for."""
        addresses = [urlsplit(one) for one in self.asked if "/tiles/WebMercatorQuad/" in one]
        return [parse_qs(one.query) for one in addresses if not one.path.endswith("tilejson")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: chromium)")
    if not (Path(api.__file__).parent / "web/static/vendor/maplibre/maplibre-gl.mjs").is_file():
        pytest.skip("the map library is not installed (scripts/setup)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["wide", "narrow"])
def shown(browser: Any, request: pytest.FixtureRequest) -> Iterator[Shown]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    shown = Shown(page)
    page.on("request", lambda asked: shown.asked.append(asked.url))
    page.on("pageerror", lambda error: shown.wrong.append(str(error)))
    page.on("console", lambda said: shown.wrong.append(said.text) if said.type == "error" else None)
    yield shown
    context.close()
    assert shown.wrong == []


def test_a_city_of_many_is_clusters_from_afar_and_its_assets_from_near(
    service: Service, shown: Shown
) -> None:
    shown.open(f"{service.url}/cities/many")
    shown.look_at(100.05, 22.03, 10)
    clusters = shown.drawn("clusters")
    assert sum(each["count"] for each in clusters) == MANY
    assert shown.drawn("assets") == []
    assert shown.drawn("numbers")
    shown.look_at(100.05, 22.03, 17)
    assert shown.drawn("clusters") == []
    assert {each["class"] for each in shown.drawn("assets")} == {"tree"}
    # What tiles show is not loaded a second time.
    assert not [one for one in shown.asked if "/collections/assets/items" in one]
    assert all(query["v"] and query["class"] == ["tree"] for query in shown.tiles())


def test_a_click_opens_a_tree_and_a_click_on_a_cluster_what_is_in_it(service: Service, shown: Shown) -> None:
    shown.open(f"{service.url}/cities/many")
    shown.look_at(100.03, 22.03, 18)
    shown.click_at(100.03, 22.03)
    details = shown.page.locator("#details")
    details.locator("dl").wait_for()
    name = details.locator("h2").inner_text()
    item = service.get(f"/cities/many/collections/assets/items/{name}").json()
    assert item["geometry"]["coordinates"] == pytest.approx([100.03, 22.03], abs=1e-6)
    assert "position error m" in details.inner_text()
    assert details.locator("h2 a").get_attribute("href") == (
        f"{service.url}/cities/many/collections/assets/items/{name}?f=html"
    )
    details.locator("button").click()
    assert not details.is_visible()
    shown.look_at(100.05, 22.03, 9)
    place = shown.page.evaluate(
        f"() => {MAP}.queryRenderedFeatures({{layers: ['clusters']}})[0].geometry.coordinates"
    )
    shown.click_at(*place)
    shown.page.wait_for_function(f"() => {MAP}.getZoom() > 10.9")


def test_areas_have_their_counts_on_the_map_whatever_they_are_called(service: Service, shown: Shown) -> None:
    shown.open(f"{service.url}/cities/town")
    shown.look_at(100.05, 22.05, 11)
    labels = {each["code"]: each for each in shown.drawn("places")}
    assert labels["A"]["name"] == HOSTILE
    assert labels["A"]["count"] == 2
    shown.look_at(100.02, 22.08, 14)
    shown.click_at(100.02, 22.08)
    details = shown.page.locator("#details")
    details.locator("dl").wait_for()
    assert HOSTILE in details.inner_text()
    assert shown.page.locator("img").count() == 0
    assert details.locator("h2 a").get_attribute("href").endswith("/areas/items/district%3AA?f=html")


def test_a_date_and_a_class_are_asked_of_tiles_too(service: Service, shown: Shown) -> None:
    shown.open(f"{service.url}/cities/town#as_of=2026-03-01")
    assert {query["datetime"][0] for query in shown.tiles()} == {"2026-03-01"}
    shown.look_at(100.03, 22.02, 12)
    then = {each["id"] for each in shown.drawn("assets")}
    felled = service.get(
        "/cities/town/collections/assets/items?datetime=2026-03-01&bbox=100.029,22.029,100.031,22.031"
    ).json()["features"][0]["id"]
    assert felled in then
    shown.look_at(100.03, 22.03, 18)
    shown.click_at(100.03, 22.03)
    shown.page.locator("#details dl").wait_for()
    assert shown.page.locator("#details h2").inner_text() == felled
    shown.page.locator("#details button").click()
    shown.page.locator("#class").select_option("car")
    shown.settle()
    shown.look_at(100.0115, 22.0115, 16)
    assert shown.drawn("assets") == []
    assert len(shown.drawn("points")) == 2


def test_a_row_of_the_table_shows_its_area(service: Service, shown: Shown) -> None:
    shown.open(f"{service.url}/cities/town")
    row = shown.page.locator("#counts tbody tr").nth(1)
    row.focus()
    row.press("Enter")
    shown.page.wait_for_function(f"() => {MAP}.getCenter().lng > 100.07")
    assert shown.page.evaluate(f"() => {MAP}.getCenter().toArray()") == pytest.approx(
        [100.075, 22.05], abs=0.01
    )


def test_imagery_lies_under_rings_when_it_is_asked_for_and_is_remembered(
    service: Service, shown: Shown
) -> None:
    # The town's scene has no file: what stands for its tiles is a picture of one pixel.
    pixel = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    )
    tiles = re.compile(r"/imagery/tiles/WebMercatorQuad/\d+/")
    shown.page.route(tiles, lambda route: route.fulfill(body=pixel, content_type="image/png"))
    opacity = f"() => {MAP}.getPaintProperty('assets', 'circle-opacity')"
    has_imagery = f"() => Boolean({MAP}.getLayer('imagery'))"
    shown.open(f"{service.url}/cities/town")
    assert not shown.page.evaluate(has_imagery)
    filled = shown.page.evaluate(opacity)
    shown.page.check("#imagery")
    shown.page.wait_for_function(has_imagery)
    shown.settle()
    assert any(tiles.search(one) for one in shown.asked)
    assert shown.page.evaluate(opacity) < filled / 2
    shown.page.reload()
    shown.page.wait_for_selector("#inventory[data-ready=yes]", timeout=30_000)
    assert shown.page.evaluate(has_imagery)
    assert shown.page.evaluate(opacity) < filled / 2
    shown.page.uncheck("#imagery")
    shown.page.wait_for_function(f"() => !{MAP}.getLayer('imagery')")
    assert shown.page.evaluate(opacity) == filled

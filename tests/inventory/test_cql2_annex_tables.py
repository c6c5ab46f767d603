"""Every predicate in the tables of the CQL2 standard's abstract tests, with its expected count, in both encodings.

Read from the annex itself: the files ``cql2/standard/annex_ats_*.adoc`` of the repository
opengeospatial/ogcapi-features, beside the data in the folder that ``URBAN_INVENTORY_CQL2_DATA`` names.
"""

import json
import re

import cql2
import pytest

from api.ogc.cql2_text import read_cql2_text
from tests.inventory.test_cql2_annex import DATA, PLACES, Layers, layers

__all__ = ["layers"]

ANNEX = sorted(DATA.parent.glob("annex_ats_*.adoc")) if DATA is not None else []
pytestmark = pytest.mark.skipif(
    not ANNEX,
    reason="URBAN_INVENTORY_CQL2_DATA names no folder with the standard's data and annex_ats_*.adoc",
)
# The annex says 2 of each. Its data hold Chișinău, Chicago and Chengdu, and nothing else that begins so.
ERRATA = {
    "ACCENTI(name) LIKE accenti('Ch%')": 3,
    "ACCENTI(CASEI(name)) LIKE accenti(casei('Chiș%'))": 1,
    "ACCENTI(CASEI(name)) LIKE accenti(casei('cHis%'))": 1,
}
_PREDICATE = re.compile(r"\|(ne_110m_\w+) \|`(.+)` \|(\d+)")
_COMBINATION = re.compile(r"\|`(.+?)` \|`(.+?)` \|`(.+?)` \|`(.+?)` \|(\d+)")


def rows(pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
    lines = [line for file in ANNEX for line in file.read_text(encoding="utf-8").splitlines()]
    # AsciiDoc escapes what it would take for its own.
    found = [pattern.search(line.replace(r"\<", "<").replace(r"\(", "(")) for line in lines]
    return [one.groups() for one in found if one is not None]


def named(row: tuple[str, ...]) -> str:
    return " ".join(row)


def counted_in_both(layers: Layers, layer: str, text: str) -> tuple[int, int]:
    as_json = json.dumps(cql2.parse_text(text).to_json())
    return (
        layers.count(layer, read_cql2_text(text)),
        layers.count(layer, cql2.parse_json(as_json).to_json()),
    )


@pytest.mark.parametrize("row", rows(_PREDICATE), ids=named)
def test_a_predicate_of_the_annex_finds_what_it_says(layers: Layers, row: tuple[str, ...]) -> None:
    layer, text, said = row
    expected = ERRATA.get(text, int(said))
    assert counted_in_both(layers, layer, text) == (expected, expected)


@pytest.mark.parametrize("row", rows(_COMBINATION), ids=named)
def test_a_combination_of_the_annex_finds_what_it_says(layers: Layers, row: tuple[str, ...]) -> None:
    *p, expected = row
    text = f"(NOT ({p[1]}) AND {p[0]}) OR ({p[2]} and {p[3]}) or not ({p[0]} OR {p[3]})"
    assert counted_in_both(layers, PLACES, text) == (int(expected), int(expected))


def test_the_annex_was_read_whole() -> None:
    assert len(rows(_PREDICATE)) == 274
    assert len(rows(_COMBINATION)) == 77

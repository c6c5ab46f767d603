"""CQL2 text is read as the cql2 library reads it, and in bounded time and depth whatever strangers send."""

import time
from contextlib import suppress
from typing import Any

import cql2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.ogc.cql2_text import read_cql2_text
from api.ogc.filters import read_filter
from detection.errors import CallerError
from inventory.errors import FilterUnusable
from inventory.store.filters import condition
from inventory.store.queryables import of_assets

SAID = [
    "a = 1", "树种 = '香樟'", '"a b" <> \'it\'\'s\'', '"a""b" = 1', "a != 1", "a >= -5", "a > ( - (5))", "a = -b",
    "a = +5",
    "a = 2 - 3 - 4", "a = 2^3^2", "a = 8/4/2", "a = -2^2", "a = 2*-b", "a + 1 = b * 2 - 3 % 4", "a div b / c = 5 div 2",
    "a OR b AND NOT c OR d", "a AND b AND (c AND d)", "(a OR b) OR c", "NOT a = 1 AND b = 2", "not a = not b", "NOT(a)",
    "a IS NOT NULL AND b is null", "a not in ('x', 'y') or a IN (1+2, -3)", "a between -1 and +1 and b = 3",
    "a not between 1 and 2", "NOT a LIKE 'x%'", "casei(a) like casei('X%')", "a NOT LIKE 'x'", "true and FALSE", "tall",
    "(a = 1) = true", "a = DATE('2026-01-01') or date = 1", "a > TIMESTAMP('2026-01-02T03:04:05Z')",
    "T_DURING(INTERVAL(a,'..'), interval('2020-01-01',DATE('2021-01-01')))", "f(a, 'x', 1) = g()",
    "A_CONTAINS(a,('x','y'))",
    "S_INTERSECTS(geom,BBOX(-1,-2.5,1e1,2))", "s_within(geom, Point (1 -2))", "s_within(geom, POINT Z(1 2 3))",
    "s_within(geom,POLYGON((0 0,1 0,1 1,0 0),(0.5 0.1,0.6 0.1,0.6 0.2,0.5 0.1)))",
    "s_within(geom,MULTIPOINT(1 2,3 4))", "s_within(geom,MULTIPOINT((1 2),(3 4)))",
    "s_within(geom,LINESTRING(0 0, 1 1))",
    "s_within(geom,MULTILINESTRING((0 0,1 1),(2 2,3 3)))", "a.b:c = 1", "  a\t=\n1 ",
    "s_within(geom,MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5))))",
    "s_within(geom,GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1)))",
]  # fmt: skip


def as_the_library_has_it(text: str) -> Any:
    return cql2.parse_text(text).to_json()


@pytest.mark.parametrize("text", SAID)
def test_a_text_means_what_the_library_takes_it_for(text: str) -> None:
    assert read_cql2_text(text) == as_the_library_has_it(text)


_VALUES = st.recursive(
    st.sampled_from(["a", '"b c"', "1", "2.5", "-3", "'x'", "''"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "%", " div ", "^"]), inner).map("".join),
        inner.map(lambda one: f"({one})"),
        inner.map(lambda one: f"casei({one})"),
    ),
    max_leaves=5,
)
_CONDITIONS = st.recursive(
    st.one_of(
        st.tuples(_VALUES, st.sampled_from(["=", "<>", "<", ">", "<=", ">="]), _VALUES).map("".join),
        st.tuples(_VALUES, st.sampled_from([" IS NULL", " is not null", " IN (1,a)", " LIKE 'x%'",
                                            " NOT LIKE '_'", " BETWEEN 1 AND a", " not between a and 2"])).map("".join),
        st.sampled_from(["true", "t", "t_after(a,b)"]),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" AND ", " or "]), inner).map("".join),
        inner.map(lambda one: f"NOT ({one})"),
        inner.map(lambda one: f"({one})"),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(_CONDITIONS)
def test_any_text_means_what_the_library_takes_it_for(text: str) -> None:
    assert read_cql2_text(text) == as_the_library_has_it(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"a = 'it\'s'", "it's"),
        (r"a = 'C:\\x'", "C:\\x"),
        (r"a = '\a\b\t\n\v\f\r'", "\a\b\t\n\v\f\r"),
        # For LIKE: there it means the sign itself.
        (r"a = '50\%\_'", r"50\%\_"),
        (r"a = '\\'''", "\\'"),
    ],
)
def test_texts_are_escaped_as_the_standard_says(text: str, value: str) -> None:
    assert read_cql2_text(text)["args"][1] == value


def test_ilike_of_the_draft_compares_without_case() -> None:
    assert read_cql2_text("a NOT ILIKE 'X%'") == read_cql2_text("NOT (CASEI(a) LIKE CASEI('X%'))")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a =", "at sign 4 it ends"),
        ("= 1", "“=” stands where a value"),
        ("a = 1 b", "“b” stands where an operator"),
        ("a = 'x", "at sign 5 a text is not closed"),
        (r"a = 'x\'", "not closed"),
        ("a ; b", "“;” has no meaning"),
        ("a = NULL", "IS NULL"),
        ("a = b = c", "parentheses"),
        ("a IN ()", "“\\)” stands"),
        ("a IN (1", "“\\)” should be"),
        ("a NOT 1", "after NOT"),
        ("DATE(a) = b", "DATE takes one text"),
        ("S_WITHIN(a, POINT EMPTY)", "empty"),
        ("S_WITHIN(a, POINT(1))", "a number"),
        ("S_WITHIN(a, POINT(1 2, 3 4))", "one position"),
        ("S_WITHIN(a, GEOMETRYCOLLECTION(GEOMETRYCOLLECTION(POINT(1 2))))", "no collection"),
        ("a = 1e999", "not finite"),
        ("a = '\ud800", "not closed"),
        ("", "it ends"),
    ],
)
def test_what_is_no_cql2_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(FilterUnusable, match=told):
        read_cql2_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 3_000 + "a=1" + ")" * 3_000,
        # Quotes that only look as if they closed what they do not.
        "name = '\\' OR " + "(" * 3_000 + "a=1" + ")" * 3_000 + " OR name = 'x'",
        "a=1" + "+1" * 30_000,
        "a" + "=1" * 30_000,
        "a" + " LIKE 'x'" * 6_000,
        "NOT " * 10_000 + "a",
        "a = " + "-" * 50_000 + "1",
        "f(" * 20_000,
        "(a between " * 40 + "1 and 2" + ")" * 40,
        "s_intersects(geom,MULTIPOLYGON(" + "(" * 60 + "1 2" + ")" * 61 + ")",
        "s_intersects(geom,GEOMETRYCOLLECTION(" + "POINT(1 2)," * 5_000,
        "a = '" + "\\" * 60_000,
        '"' * 60_001,
        " " * 60_000 + "'",
    ],
)
def test_hostile_texts_are_refused_at_once(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(CallerError):
        refused(text)
    assert time.monotonic() - started < 5


def refused(text: str) -> None:
    """Reads, and compiles what could be read."""
    for stated in read_filter(text, None, None):
        condition(stated, of_assets(), time_zone="UTC")


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="ab1.'\"\\(),=<>+-*/%^ \tNOTANDIinlike香\x00", max_size=60))
def test_no_text_does_more_than_be_read_or_refused(text: str) -> None:
    with suppress(FilterUnusable):
        read_cql2_text(text)

"""CQL2 text, read into CQL2 JSON (OGC 21-065r2), in time that grows with its length alone.

The ``cql2`` library reads the same language, but not from strangers: it takes twice as long with each parenthesis of
what it cannot read, and ends the process where a text is nested deeply (docs/decisions/0021). Tests hold the two
together. What is read here beyond it: the standard's escapes in texts, and ILIKE, which GDAL writes.
"""

import math
import re
from typing import Any, NamedTuple, NoReturn

from inventory.errors import FilterUnusable
from inventory.store.filters import DEPTH_LIMIT

_LETTER = r"[:_A-Za-z]|[^\s\x00-\x7f]"
_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<text>'(?:[^'\\]|''|\\.)*+')
      | (?P<quoted>"(?:[^"]|"")*+")
      | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<word>(?:{_LETTER})(?:{_LETTER}|[.0-9])*)
      | (?P<sign><>|!=|<=|>=|[=<>+\-*/%^(),])
      | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"''|\\(.)", re.DOTALL)
# A backslash before any other sign stays: LIKE has its own meaning for it.
_ESCAPES = {"a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "'": "'", "\\": "\\"}

_OR, _AND, _NOT, _COMPARED, _SUM, _PRODUCT, _POWER = range(1, 8)
_PRECEDENCE = {
    **{"or": _OR, "and": _AND},
    **dict.fromkeys(("=", "<>", "!=", "<", ">", "<=", ">="), _COMPARED),
    **dict.fromkeys(("not", "like", "ilike", "between", "in", "is"), _COMPARED),
    **dict.fromkeys("+-", _SUM),
    **dict.fromkeys(("*", "/", "%", "div"), _PRODUCT),
    "^": _POWER,
}
_RESERVED = _PRECEDENCE.keys() | {"null"}
_LITERALS = {"true": True, "false": False}
# How deep the lists of coordinates are, from the outermost parenthesis.
_GEOMETRIES = {
    "point": ("Point", 1),
    "linestring": ("LineString", 1),
    "polygon": ("Polygon", 2),
    "multipoint": ("MultiPoint", 1),
    "multilinestring": ("MultiLineString", 2),
    "multipolygon": ("MultiPolygon", 3),
    "geometrycollection": ("GeometryCollection", 0),
}
_GEOMETRIES |= {f"{name}z": kind for name, kind in _GEOMETRIES.items()}


def read_cql2_text(text: str) -> Any:
    """The CQL2 JSON that a CQL2 text says.

    Raises:
        FilterUnusable: it is no CQL2 text, or nested too deeply; says where.
    """
    return _Reader(text).whole()


class _Token(NamedTuple):
    kind: str
    said: str
    at: int

    @property
    def word(self) -> str:
        """As a keyword or sign; texts and quoted names are none."""
        return self.said.lower() if self.kind in ("word", "sign") else ""


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while True:
        match = _TOKEN.match(text, at)
        if match is None:
            start = len(text) - len(text[at:].lstrip())
            if text[start] in "'\"":
                _refuse("a text is not closed", start, "End it with its quote; a backslash escapes a quote.")
            _refuse(f"“{text[start]}” has no meaning", start, "Put texts in ' ' and names in \" \".")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
        if kind == "end":
            return found


class _Reader:
    """One text on its way to JSON; operators by their precedence."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Any:
        """All of the text."""
        found = self._expression(0)
        if self._here.kind != "end":
            self._refuse("an operator, or the end")
        return found

    # --- operators -------------------------------------------------------------------------------------

    def _expression(self, least: int) -> Any:
        """What stands here, as far as operators bind at least so strongly."""
        left, is_compared = self._operand(), False
        while (binds := _PRECEDENCE.get(self._here.word, -1)) >= max(least, 0):
            token = self._take()
            if binds == _COMPARED:
                if is_compared:
                    _refuse("two comparisons stand in a row", token.at, "Put one of them in parentheses.")
                left, is_compared = self._compared(left, token), True
            elif binds in (_OR, _AND):
                left, is_compared = _joined(token.word, left, self._expression(binds + 1)), False
            else:
                left = _operation(token.word, left, self._expression(binds + 1))
        return left

    def _compared(self, left: Any, token: _Token) -> Any:
        if token.word == "not":
            token = self._take()
            if token.word not in ("like", "ilike", "between", "in"):
                self._refuse("LIKE, BETWEEN or IN after NOT", token)
            return _operation("not", self._compared(left, token))
        if token.word == "is":
            is_not = self._took("not")
            self._expect("null")
            null = _operation("isNull", left)
            return _operation("not", null) if is_not else null
        if token.word == "in":
            self._expect("(")
            return _operation("in", left, self._list())
        if token.word == "between":
            low = self._expression(_SUM)
            self._expect("and")
            return _operation("between", left, low, self._expression(_SUM))
        right = self._expression(_NOT if self._here.word == "not" else _SUM)
        if token.word == "ilike":
            return _operation("like", _operation("casei", left), _operation("casei", right))
        return _operation("<>" if token.word == "!=" else token.word, left, right)

    # --- operands --------------------------------------------------------------------------------------

    def _operand(self) -> Any:
        self._depth += 1
        token = self._take()
        if self._depth > DEPTH_LIMIT:
            _refuse(f"the filter is nested more than {DEPTH_LIMIT} deep", token.at, "Simplify it.")
        try:
            return self._value(token)
        finally:
            self._depth -= 1

    def _value(self, token: _Token) -> Any:
        if token.kind == "text":
            return _text(token.said)
        if token.kind == "number":
            return self._number(token)
        if token.kind == "quoted":
            return {"property": token.said[1:-1].replace('""', '"')}
        if token.word == "not":
            return _operation("not", self._expression(_COMPARED))
        if token.word in ("-", "+"):
            value = self._operand()
            if token.word == "+":
                return value
            return -value if type(value) is float else _operation("*", -1.0, value)
        if token.word == "(":
            found = self._list()
            return found[0] if len(found) == 1 else found
        if token.word == "null":
            _refuse("nothing is compared with NULL", token.at, "Write IS NULL or IS NOT NULL.")
        if token.kind != "word" or token.word in _RESERVED:
            self._refuse("a value, a property or a condition", token)
        return self._named(token)

    def _named(self, token: _Token) -> Any:
        name = token.word
        if name in _LITERALS:
            return _LITERALS[name]
        if name in _GEOMETRIES and self._here.word in ("(", "z", "empty"):
            return self._geometry(token)
        if not self._took("("):
            return {"property": token.said}
        if name == "bbox":
            return {"bbox": self._coordinates(1, flat=True)}
        arguments = [] if self._took(")") else self._list()
        if name in ("date", "timestamp"):
            if len(arguments) != 1 or not isinstance(arguments[0], str):
                _refuse(f"{name.upper()} takes one text", token.at, "Write DATE('2026-01-02').")
            return {name: arguments[0]}
        if name == "interval":
            return {"interval": arguments}
        return _operation(name, *arguments)

    def _list(self) -> list[Any]:
        """Expressions with commas between, and the parenthesis that closes them."""
        found = [self._expression(0)]
        while self._took(","):
            found.append(self._expression(0))
        self._expect(")")
        return found

    def _number(self, token: _Token) -> float:
        number = float(token.said)
        if not math.isfinite(number):
            _refuse("a number is not finite", token.at, "Write a smaller one.")
        return number

    # --- geometries ------------------------------------------------------------------------------------

    def _geometry(self, token: _Token) -> dict[str, Any]:
        kind, levels = _GEOMETRIES[token.word]
        self._took("z")
        if self._here.word == "empty":
            _refuse("a geometry is empty", token.at, "Give its coordinates.")
        self._expect("(")
        if kind == "GeometryCollection":
            return {"type": kind, "geometries": self._collected()}
        found = self._coordinates(levels, loose=kind == "MultiPoint")
        if kind == "Point":
            if len(found) != 1:
                _refuse("a POINT is one position", token.at, "Write POINT(longitude latitude).")
            found = found[0]
        return {"type": kind, "coordinates": found}

    def _collected(self) -> list[Any]:
        found = []
        while True:
            token = self._take()
            if _GEOMETRIES.get(token.word, ("GeometryCollection",))[0] == "GeometryCollection":
                self._refuse("a geometry that is no collection", token)
            found.append(self._geometry(token))
            if not self._took(","):
                self._expect(")")
                return found

    def _coordinates(self, levels: int, *, flat: bool = False, loose: bool = False) -> list[Any]:
        """Positions in lists as deep as ``levels``, the outermost of which is open already.

        Args:
            flat: numbers stand in place of positions.
            loose: a position may have parentheses of its own.
        """
        found: list[Any] = []
        while True:
            if levels > 1:
                self._expect("(")
                found.append(self._coordinates(levels - 1))
            elif flat:
                found.append(self._signed())
            elif loose and self._took("("):
                found.append(self._position())
                self._expect(")")
            else:
                found.append(self._position())
            if not self._took(","):
                self._expect(")")
                return found

    def _position(self) -> list[float]:
        found = [self._signed(), self._signed()]
        while self._here.kind == "number" or self._here.word in ("-", "+"):
            found.append(self._signed())
        return found

    def _signed(self) -> float:
        sign = -1.0 if self._took("-") else 1.0
        if sign > 0:
            self._took("+")
        token = self._take()
        if token.kind != "number":
            self._refuse("a number", token)
        return sign * self._number(token)

    # --- tokens ----------------------------------------------------------------------------------------

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._here
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _took(self, word: str) -> bool:
        if self._here.word != word:
            return False
        self._take()
        return True

    def _expect(self, word: str) -> None:
        if not self._took(word):
            self._refuse(f"“{word.upper()}”")

    def _refuse(self, wanted: str, token: _Token | None = None) -> NoReturn:
        token = self._here if token is None else token
        met = "it ends" if token.kind == "end" else f"“{token.said[:40]}” stands"
        _refuse(f"{met} where {wanted} should be", token.at, "See CQL2, or docs/gis.md for examples.")


def _operation(op: str, *arguments: Any) -> dict[str, Any]:
    return {"op": op, "args": list(arguments)}


def _joined(op: str, left: Any, right: Any) -> dict[str, Any]:
    """Both, or either: in one list however many there are."""
    joined: dict[str, Any] = left if _is(op, left) else _operation(op, left)
    joined["args"] += right["args"] if _is(op, right) else [right]
    return joined


def _is(op: str, node: Any) -> bool:
    return isinstance(node, dict) and node.get("op") == op


def _text(said: str) -> str:
    return _ESCAPED.sub(
        lambda found: "'" if found[1] is None else _ESCAPES.get(found[1], found[0]), said[1:-1]
    )


def _refuse(what: str, at: int, do: str) -> NoReturn:
    raise FilterUnusable(f"the filter is no CQL2 text: at sign {at + 1} {what}", do=do)

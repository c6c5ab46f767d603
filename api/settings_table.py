"""What is set, where it comes from, and the page about all settings: made from ``Settings`` itself."""

import os
import tomllib
from dataclasses import dataclass
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from api.settings import PREFIX, Settings, settings_file
from inventory.store.addresses import without_password

_SECRET = ("database_url", "owner_database_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """A setting as it holds now; ``value`` may be shown to anybody."""

    name: str
    variable: str
    value: Any
    source: str
    description: str


def setting_rows(settings: Settings) -> list[SettingRow]:
    """Every setting with its value, passwords masked, and its source: environment, settings.toml, default."""
    in_file = names_in_file()
    return [
        SettingRow(
            name=name,
            variable=variable_of(name),
            value=_shown(name, getattr(settings, name)),
            source=_source(name, in_file),
            description=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def names_in_file() -> list[str]:
    """The names that ``settings.toml`` sets, known or not; none where there is no file or it is broken."""
    file = settings_file()
    if not file.is_file():
        return []
    try:
        return list(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError):
        return []


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def settings_page() -> str:
    """``docs/settings.md``: every setting, with its default and what it may be."""
    lines = [
        "# Settings",
        "",
        "Made from the program: `urban-inventory settings --markdown`. A test fails when this page is not current.",
        "",
        "An environment variable wins over a line in `settings.toml` in the data folder; the name there is in the",
        "second column. `urban-inventory settings` shows what holds, and where it comes from.",
        "",
        "| variable | in settings.toml | default | what it is |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{variable_of(name)}` | {_key(name)} | {_default(name, field)} | {_says(field)} |")
    lines += [
        "",
        "An example of `settings.toml`:",
        "",
        "```toml",
        "port = 8080",
        'public_url = "https://trees.example.org"',
        "```",
        "",
    ]
    return "\n".join(lines)


def _key(name: str) -> str:
    # The file lies in the home, so it cannot say where the home is.
    return "–" if name == "home" else f"`{name}`"


def _says(field: FieldInfo) -> str:
    bounds = [f"{word} {value}" for kind, word in _BOUNDS for value in _bound(field, kind)]
    kind = field.annotation
    kinds = [one for one in get_args(kind) if one is not type(None)] or [kind]
    number = " A number." if kinds == [int] and not bounds else ""
    return f"{field.description}{number}{' ' + ', '.join(bounds).capitalize() + '.' if bounds else ''}"


_BOUNDS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


def _bound(field: FieldInfo, kind: str) -> list[Any]:
    return [getattr(one, kind) for one in field.metadata if getattr(one, kind, None) is not None]


def _default(name: str, field: FieldInfo) -> str:
    if name == "home":
        return "`/var/lib/urban-inventory` for root, else `~/.local/share/urban-inventory` (XDG)"
    if field.default is None or field.default is PydanticUndefined:
        return "unset"
    return f"`{field.default}`"


def _shown(name: str, value: Any) -> Any:
    if value is None or isinstance(value, int):
        return value
    return without_password(value) if name in _SECRET else str(value)


def _source(name: str, in_file: list[str]) -> str:
    variable = variable_of(name)
    if any(key.upper() == variable for key in os.environ):
        return "environment"
    return "settings.toml" if name in in_file else "default"

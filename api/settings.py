"""Settings of an installation: ``URBAN_INVENTORY_*`` in the environment, then ``settings.toml`` in its home.

Built once, in ``create_app`` or the command line's ``main``; floors below get values, never this class.
"""

import os
from enum import StrEnum
from pathlib import Path

from pydantic import AnyHttpUrl, Field, IPvAnyNetwork, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from detection.providers import Provider
from inventory.errors import ConfigurationError

PREFIX = "URBAN_INVENTORY_"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class MetricsFor(StrEnum):
    """Who may read the service's figures."""

    LOOPBACK = "loopback"
    EVERYBODY = "everybody"
    NOBODY = "nobody"


class LogFormat(StrEnum):
    """How lines about requests are written."""

    TEXT = "text"
    JSON = "json"


def default_home() -> Path:
    """``/var/lib/urban-inventory`` for root, else the XDG data home's folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/urban-inventory")
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data_home) / "urban-inventory"


class Settings(BaseSettings):
    """One installation; two homes are two installations."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default_factory=default_home, description="The data folder.")
    database_url: str | None = Field(
        default=None, description="PostgreSQL address of the service's role; unset: the embedded database."
    )
    owner_database_url: str | None = Field(
        default=None, description="Address of the owner's role, used by “migrate” alone."
    )
    data_mirror: str | None = Field(
        default=None,
        description="Folder or address of data sets, one folder each; the demo looks in “demo/” of it first.",
    )
    provider: Provider = Field(
        default=Provider.CPU,
        description="What computes networks: cpu, or after “models check” openvino, openvino-bf16, cuda.",
    )
    host: str = Field(default="127.0.0.1", description="Address that “serve” listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that “serve” listens on.")
    public_url: AnyHttpUrl | None = Field(
        default=None, description="Address under which users reach the service; required beyond loopback."
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Processes that “serve” answers with; one for each core, at most 4, without it.",
    )
    pool_size: int = Field(default=8, ge=1, le=100, description="Database connections held.")
    maximum_items: int = Field(default=10_000, ge=2_500, le=10_000, description="Largest page of items.")
    default_items: int = Field(default=1_000, ge=1, le=10_000, description="Page of items without “limit”.")
    downloads_at_once: int = Field(
        default=2, ge=1, le=50, description="Whole collections downloaded at once; each holds a connection."
    )
    client_requests: int = Field(
        default=32, ge=1, le=1_000, description="Requests of one client answered at once; more wait, briefly."
    )
    requests_at_once: int = Field(
        default=100,
        ge=1,
        le=1_000,
        description="Requests of all clients answered at once; more wait, briefly.",
    )
    wait_s: float = Field(
        default=10.0, gt=0, le=120, description="Longest wait for that, in seconds; then 429 or 503."
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="Networks of proxies that name the client by X-Forwarded-For or Forwarded,"
        ' as ["10.0.0.0/8"]; this machine’s always may.',
    )
    allow_unauthenticated_writes: bool = Field(
        default=False, description="Whether anybody on this machine may write; on loopback alone."
    )
    metrics: MetricsFor = Field(
        default=MetricsFor.LOOPBACK, description="Who may read /metrics: loopback, everybody, nobody."
    )
    log_format: LogFormat = Field(
        default=LogFormat.TEXT, description="Lines of “serve” about requests: text, or json for machines."
    )
    body_limit_bytes: int = Field(default=8 * 1024**2, ge=1024, description="Largest body of a request.")
    vertex_limit: int = Field(
        default=100_000, ge=4, le=100_000, description="Vertices of a polygon to count in."
    )

    @property
    def accepted_providers(self) -> Path:
        """Where “models check” writes which models passed with which provider."""
        return self.home / "models" / "accepted-providers.json"

    @property
    def models_folder(self) -> Path:
        """Where a user's own models lie."""
        return self.home / "models"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, settings_file())


def settings_file() -> Path:
    """``settings.toml`` in the home; the home itself is told by the environment alone."""
    return Path(os.environ.get(f"{PREFIX}HOME") or default_home()) / "settings.toml"


def read_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        ConfigurationError: a value is of the wrong kind; the message names each.
    """
    try:
        return Settings()
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(_faults(error), do="docs/settings.md says what each may be.") from error


def _faults(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return f"settings.toml cannot be read: {error}"
    return "; ".join(
        f"URBAN_INVENTORY_{'.'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
        for fault in error.errors()
    )

"""``cluster``: the embedded database's server."""

import os
import subprocess
from typing import Annotated

import typer

from api.cli import output
from api.cli.detection import JsonOption
from api.settings import Settings, read_settings
from detection.errors import UnknownName
from inventory.errors import ConfigurationError
from inventory.store.cluster import open_cluster
from inventory.store.cluster_upgrade import upgrade_cluster
from inventory.store.roles import DATABASE
from inventory.store.server import PORT

cluster_app = typer.Typer(
    name="cluster",
    help="The embedded database’s server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.add_typer(cluster_app)


@cluster_app.command("status")
def status(as_json: JsonOption = False) -> None:
    """Say where the embedded database lies, which PostgreSQL runs it, and its address."""
    settings = _embedded()
    with open_cluster(settings.home / "postgres") as cluster:
        told = {
            "folder": str(cluster.root),
            "version": cluster.programs.version,
            "socket": str(cluster.socket_folder),
            "url": cluster.service_url,
        }
    if as_json:
        output.print_json(told)
    else:
        output.print_table("", ("", "Embedded database"), list(told.items()))


@cluster_app.command("upgrade")
def upgrade(as_json: JsonOption = False) -> None:
    """Move the embedded database to the newest installed PostgreSQL; the old data stay until deleted."""
    settings = _embedded()
    upgraded = upgrade_cluster(settings.home / "postgres", backups=settings.home / "backups")
    if as_json:
        output.print_json(
            {
                "before": upgraded.before,
                "after": upgraded.after,
                "dump": upgraded.dump and str(upgraded.dump),
                "old_data": upgraded.old_data and str(upgraded.old_data),
            }
        )
    elif upgraded.old_data is None:
        output.note(f"PostgreSQL {upgraded.after} is the newest installed: nothing to do")
    else:
        output.note(f"moved from PostgreSQL {upgraded.before} to {upgraded.after}")
        output.note(f"when all is well, delete the old data: {upgraded.old_data} (a dump is {upgraded.dump})")


@cluster_app.command("run", context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(help="psql, pg_dump, pg_restore… with its own options.")],
) -> int:
    """Run a PostgreSQL program on the embedded database, up for as long as that takes."""
    settings = _embedded()
    with open_cluster(settings.home / "postgres") as cluster:
        # The server's own version of the programs comes first; the rest of the environment is the user's.
        environment = os.environ | {
            "PATH": f"{cluster.programs.folder}:{os.environ.get('PATH', os.defpath)}",
            "PGHOST": str(cluster.socket_folder),
            "PGPORT": str(PORT),
            "PGDATABASE": DATABASE,
        }
        try:
            return subprocess.run(command, check=False, env=environment).returncode
        except FileNotFoundError as error:
            raise UnknownName(f"no program {command[0]!r} is installed") from error


def _embedded() -> Settings:
    settings = read_settings()
    if settings.database_url is not None:
        raise ConfigurationError(
            "the database is an external one; its administrator looks after its server",
            where="URBAN_INVENTORY_DATABASE_URL",
        )
    return settings

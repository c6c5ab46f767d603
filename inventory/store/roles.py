"""The database's roles, as statements that a superuser runs: once for a cluster, once for a database.

The embedded cluster runs them itself; an administrator of an external server gets the same lines
from ``administrator_script``. Tables, and rights on them, belong to the migrations.
"""

DATABASE = "urban_inventory"
OWNER = "urban_inventory_owner"
SERVICE = "urban_inventory_service"
READER = "urban_inventory_reader"
BACKUP = "urban_inventory_backup"
SIGNER = "urban_inventory_signer"

ROLES = {
    OWNER: "owns the schema and alone migrates it",
    SERVICE: "the program's own: reads and writes rows, owns nothing",
    READER: "reads the views meant for other programs",
    BACKUP: "reads everything, past row policies, for a complete dump",
    SIGNER: "signs the ledger",
}

# The only extensions of the project; both are needed before the owner can make its tables.
EXTENSIONS = ("postgis", "btree_gist")

# BYPASSRLS for the backup alone: a dump under row policies fails rather than being partial (F26).
_ATTRIBUTES = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT"


def cluster_statements() -> list[str]:
    """Statements that make every role, whether or not it exists; run in any database."""
    statements = [_make_role(role) for role in ROLES]
    statements += [f'GRANT pg_read_all_data TO "{BACKUP}"']
    statements += [f'ALTER ROLE "{BACKUP}" INHERIT']
    statements += [f'ALTER ROLE "{BACKUP}" SET default_transaction_read_only = on']
    statements += [f'ALTER ROLE "{READER}" SET default_transaction_read_only = on']
    return statements


def database_statements(database: str = DATABASE) -> list[str]:
    """Statements that prepare a database for the migrations; run inside that database."""
    statements = [f"CREATE EXTENSION IF NOT EXISTS {extension}" for extension in EXTENSIONS]
    statements += [
        f'ALTER DATABASE "{database}" OWNER TO "{OWNER}"',
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    ]
    return statements + connect_statements(database)


def connect_statements(database: str = DATABASE) -> list[str]:
    """Statements that let our roles, and nobody else, into a database; a copy of one needs them anew."""
    return [
        # Without TEMP: staging tables are permanent, so nobody needs tables of their own.
        f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC',
        *(f'GRANT CONNECT ON DATABASE "{database}" TO "{role}"' for role in ROLES),
    ]


def administrator_script(database: str = DATABASE) -> str:
    """The lines for ``psql`` that prepare an external server, passwords left to its administrator."""
    lines = [
        *cluster_statements(),
        f"CREATE DATABASE \"{database}\" ENCODING 'UTF8' TEMPLATE template0",
    ]
    script = ";\n".join(lines) + f";\n\\connect {database}\n"
    script += ";\n".join(database_statements(database)) + ";\n"
    passwords = "".join(f"\\password {role}\n" for role in (OWNER, SERVICE))
    return script + passwords


def _make_role(role: str) -> str:
    attributes = f"{_ATTRIBUTES} {'BYPASSRLS' if role == BACKUP else 'NOBYPASSRLS'}"
    return (
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') "
        f'THEN CREATE ROLE "{role}"; END IF; END $$;\n'
        f'ALTER ROLE "{role}" {attributes}'
    )

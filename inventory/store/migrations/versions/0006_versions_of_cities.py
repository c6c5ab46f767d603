"""A city has a version, another one after every change of anything of it.

Run: before the program's upgrade.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    # One command at a time, as the driver wants it; a blank line ends each in these files.
    for statement in (_SQL / "0006_versions_of_cities.sql").read_text(encoding="utf-8").split(";\n\n"):
        op.execute(text(statement.replace(":", r"\:")))

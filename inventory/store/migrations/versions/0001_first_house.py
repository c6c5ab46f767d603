"""The first house: tables, the functions that make a city's partitions, rights and the reader's view.

Run: before the program's upgrade.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    for name in ("0001_tables.sql", "0001_programs.sql"):
        # One command at a time, as the driver wants it; a blank line ends each in these files.
        for statement in (_SQL / name).read_text(encoding="utf-8").split(";\n\n"):
            op.execute(text(statement.replace(":", r"\:")))

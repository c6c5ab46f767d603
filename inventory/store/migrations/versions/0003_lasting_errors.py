"""Lasting errors: how probably an asset is, if an error at all, one that every look of its model repeats (R8).

Run: before the program's upgrade. The first change of each city then folds it from nothing.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    # One command at a time, as the driver wants it; a blank line ends each in these files.
    for statement in (_SQL / "0003_lasting_errors.sql").read_text(encoding="utf-8").split(";\n\n"):
        op.execute(text(statement.replace(":", r"\:")))
